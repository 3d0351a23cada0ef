"""Files that are either whole or absent: each is written under a temporary name and then renamed.

Of the processes of a distributed run, the main one writes.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pandas as pd

BUNDLE = Path(__file__).parent / "bundle"  # the networks that the package ships
HISTORY = "history.safetensors"  # of a steering run, in its folder
MOST_VALUES = 10_000  # that the aliases of a YAML file may stand for
LAST_CHECKPOINT = Path("checkpoints", "last.ckpt")  # of a training, in its run's folder


def is_bundled(checkpoint: object) -> bool:
    """Whether a network's `checkpoint` is one of those that the package ships."""
    return Path(str(checkpoint)).parent == BUNDLE


def cache_folder() -> Path:
    """Where reference logits are kept: `$XDG_CACHE_HOME/zsteer/reference`, or `~/.cache/zsteer/reference`.

    Raises:
        FileNotFoundError: there is no home either, as for a user that the system does not know.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise FileNotFoundError("no home folder is known") from error
    return cache / "zsteer" / "reference"


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` if the block ends well and removed if it does not.

    What it holds is on the disk before it has its name, so that a power cut leaves no empty file either.

    Raises:
        OSError: it cannot be written, whatever the library that was to write it makes of that.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        # A name that TensorBoard takes for no event file, and the suffix by which some writers choose a format.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)  # mkstemp's files are private; a result is not
            _sync(temporary, os.O_RDWR)
            rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def rename(old: Path, new: Path) -> None:
    """Rename a file or a folder, and wait until the disk knows."""
    old.replace(new)
    with suppress(OSError):  # Windows opens no folder, and some file systems cannot be asked
        _sync(new.parent, os.O_RDONLY)


def _sync(path: Path, access: int) -> None:
    handle = os.open(path, access)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Name the file that a block writes in the error that it cannot be written.

    Raises:
        OSError: with `path`, of which the system and most libraries say nothing.
    """
    try:
        yield
    except Exception as error:
        reason = _system_error(error)
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror or str(reason), os.fspath(path)) from error


def _system_error(error: Exception) -> OSError | None:
    """What the system said, as far as a library's error tells; None if that was nothing."""
    if number := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors'
        return OSError(int(number[1]), os.strerror(int(number[1])))
    reason = error if isinstance(error, OSError) else error.__context__  # which torch's writer fails over
    return reason if isinstance(reason, OSError) else None


def read_sidecar(checkpoint: str | os.PathLike | None) -> dict[str, Any]:
    """The `config` and `figures` that a training run of ours wrote beside its weights; {} for other weights."""
    path = Path(checkpoint).with_suffix(".json") if checkpoint else None
    about = None if path is None or not path.is_file() else read_json(path)
    if isinstance(about, dict) and all(isinstance(about.get(part), dict) for part in ("config", "figures")):
        return about
    return {}


def recorded_at(checkpoint: str | os.PathLike | None, *place: str) -> Any:
    """What stands at a place in the JSON beside weights, key by key; None if nothing does."""
    found: Any = read_sidecar(checkpoint)
    for key in place:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def check_aliases(path: str | os.PathLike) -> None:
    """Refuse a YAML file whose aliases stand for so much that reading it would take memory without end.

    Raises:
        ValueError: that is more than 10,000 values, or they stand for what they are in.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    if "*" not in text:
        return
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        size = 0 if root is None else _size(root, {})
    except yaml.YAMLError:  # of which those tell who read it
        return
    except RecursionError:
        raise ValueError(f"{path} nests too deeply, or contains itself") from None
    if size > MOST_VALUES:
        raise ValueError(f"{path} has YAML aliases that stand for {size:,} values, more than {MOST_VALUES:,}")


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a YAML node stands for, each as often as it would be copied."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def read_json(path: str | os.PathLike) -> Any:
    """What a JSON file holds; None if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinity, which JSON lacks, are refused."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_table(path: str | os.PathLike, table: "pd.DataFrame", float_format: str | None = None) -> None:
    """Write a table as CSV, without its index; what is missing stays empty."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format=float_format)


def printable(name: str) -> str:
    """A file's name as text, with a mark for each byte of it that is none."""
    return os.fsencode(name).decode(errors="replace")


def slug(words: Sequence[str] | str, longest: int = 80) -> str:
    """Words as one file name of letters, digits, `.`, `_` and `-`: overrides and globs trip over `=` and `,`."""
    text = words if isinstance(words, str) else "_".join(str(word) for word in words)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-_.")[:longest]


def is_main_process() -> bool:
    """Whether this process writes a run's files: not the others of a distributed run, which share its folder."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # the first that is set counts, as for Lightning
    return next((os.environ[name] for name in ranks if name in os.environ), "0") == "0"
