"""What a run was made of, as its `status.json` keeps it: command, versions, machine, source, and the files it read.

All of a process's runs share what takes time: versions, the commit, and the hash of each file.
"""

import hashlib
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import zsteer
from zsteer.app.composition import PACKAGE
from zsteer.app.handles import FILES, TRAINED_AS
from zsteer.data.photos import photo_files
from zsteer.data.store import opened_stores
from zsteer.settings import SOURCES

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "numpy")
# The keys of a config that name what is read, but for data, of which there is a store.
READ = (*FILES, *(f"{key}.checkpoint" for key in TRAINED_AS), "image", "inception", "scores.inception", "data.table")
# Commands whose runs make nothing that could be made again.
UNRECORDED = ("doctor", "explore", "reproduce", "summarize")


def provenance_of(
    command: str, cfg: DictConfig, words: Sequence[str], config_dir: str | Path | None, objects: Sequence[str] = ()
) -> dict[str, Any]:
    """What a run is made of.

    Args:
        words: what the command was given, without Hydra's own.
        config_dir: the folder of the user's configs.
        objects: the names of what a caller in Python gave that no word can say.
    """
    options = [] if config_dir is None else [f"--config-dir={config_dir}"]
    return {
        "name": command,
        "command": shlex.join([f"zsteer-{command.replace('_', '-')}", *options, *words]),
        "objects": list(objects),
        "versions": dict(versions()),
        "machine": machine(),
        "source": source(),
        "files": {key: {"path": str(path), "sha256": sha256(path)} for key, path in files_of(cfg)},
    }


@cache
def versions() -> Mapping[str, str | None]:
    """The versions of Python, of zsteer and of what else decides about bits; null where one is not installed."""
    return {
        "python": platform.python_version(),
        "zsteer": zsteer.__version__,
        **{package: installed(package) for package in PACKAGES},
    }


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """What computes: the processor's instructions and threads, on which bits depend too, and the GPU, if any."""
    import torch

    return {
        "system": platform.system(),
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@cache
def source() -> dict[str, Any] | None:
    """The commit of the checkout that the source is in, and whether the source was changed since; None elsewhere."""
    checkout = PACKAGE.parents[1]
    if not (checkout / ".git").exists():
        return None
    commit, changed = (
        _git(checkout, "rev-parse", "HEAD"),
        _git(checkout, "status", "--porcelain", "--", "src", "configs"),
    )
    return None if commit is None else {"commit": commit, "changed": changed != ""}


def _git(checkout: Path, *words: str) -> str | None:
    """What git says of a checkout; None where it cannot."""
    command = ["git", "--no-optional-locks", "-C", str(checkout), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def files_of(cfg: DictConfig) -> Iterator[tuple[str, Path]]:
    """The files that a config names, by its keys."""
    for key in READ:
        given = OmegaConf.select(cfg, key, throw_on_missing=False)
        if isinstance(given, str) and given not in SOURCES and Path(given).exists():
            yield key, Path(given)


def sha256(path: Path) -> str | None:
    """The hash of a file, or of the names and hashes of a folder's pictures; None of what cannot be read."""
    try:
        if path.is_dir():
            listed = [f"{file.name} {sha256(file)}" for file in photo_files(path, "image")]
            return hashlib.sha256(os.fsencode("\n".join(listed))).hexdigest()
        about = path.stat()
        return _sha256(path.absolute(), about.st_size, about.st_mtime_ns)
    except (OSError, ValueError):  # a folder that holds no pictures
        return None


@lru_cache
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def data_noted(provenance: dict[str, Any]) -> Iterator[None]:
    """Add to a run's provenance the fingerprints of the stores that it opens, by their folders."""
    with opened_stores() as stores:
        yield
    if stores and provenance:
        provenance["data"] = {str(store.folder): store.fingerprint() for store in stores}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is another now than a run's record says, a line each, but for files.

    Data are compared by their fingerprints: stores may lie elsewhere.
    """
    lines = []
    for part in ("versions", "machine", "source"):
        before, after = (_section(side, part) for side in (then, now))
        for key in dict.fromkeys((*before, *after)):
            if before.get(key) != after.get(key):
                lines.append(
                    f"{re.sub('^changed$', 'source changed', key)}: {before.get(key)} then, {after.get(key)} now"
                )
    before, after = (sorted(map(str, _section(side, "data").values())) for side in (then, now))
    if before != after:
        lines.append(f"data: {', '.join(before) or 'none'} then, {', '.join(after) or 'none'} now")
    return lines


def _section(provenance: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """A part of a record, which in a record by somebody else may be anything."""
    section = provenance.get(part)
    return section if isinstance(section, Mapping) else {}
