"""A run's folder as the handle to what the run made: weights with their network, checkpoint, noise, directions.

Nothing here imports torch, so that a folder that holds no such thing is reported at once.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zsteer.files import LAST_CHECKPOINT, check_aliases, recorded_at

STEMS = ("generator", "classifier")  # of the weights that runs leave
# The classes that a file may name. Any other could be made to do anything, and so could what their modules import.
TRUSTED = re.compile(r"zsteer\.networks\.\w+|torchvision\.models\.(?!get_)\w+")
# What torchvision's networks take for weights that they fetch; a run has its own.
FETCHED = ("weights", "weights_backbone", "pretrained")


def is_run(name: str) -> bool:
    """Whether a word in place of a config's name is the path of a folder, and not a config that is called like one."""
    folder = Path(name)
    return os.path.isdir(folder) and ("/" in name or any((folder / f"{stem}.safetensors").is_file() for stem in STEMS))


def folder_of(value: Any) -> Path | None:
    """A setting as a path, if it is an existing folder's."""
    return Path(value) if isinstance(value, str) and value and os.path.isdir(value) else None


def file_in(folder: Path, names: tuple[str, ...], key: str) -> Path:
    """The first of some files that a run's folder holds.

    Raises:
        FileNotFoundError: it has none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    unfinished = (folder / LAST_CHECKPOINT).is_file()
    remedy = f"go on with that run by ckpt_path={folder}" if unfinished else "give the folder of a run that has one"
    raise FileNotFoundError(f"{key}={folder}: the folder has no {' or '.join(names)}; {remedy}")


def section_of(
    weights: Path, trained_as: str, key: str, known: set[str] | frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The config section of a network that a run trained, from the JSON beside its weights.

    Args:
        known: classes that the user named, and therefore trusts, beside those of zsteer and torchvision.

    Raises:
        ValueError: there is none, or it names another class.
    """
    section = recorded_at(weights, "config", trained_as)
    network = section.get("network") if isinstance(section, Mapping) else None
    if section is None or not isinstance(network, Mapping) or "_target_" not in network or "${" in str(network):
        raise ValueError(f"{key}={weights.parent}: no network is described in {weights.with_suffix('.json')}")
    for name in classes_of(network):
        if name not in known and not TRUSTED.fullmatch(name):
            raise ValueError(
                f"{key}={weights.parent} was trained with {name}, which is neither zsteer's nor torchvision's; choose "
                f"your config of it too, and give {key}.checkpoint={weights.parent}"
            )
    return {**section, "network": {name: value for name, value in network.items() if name not in FETCHED}}


def read_config(path: Path) -> Any:
    """A YAML file of a run's folder, whoever wrote it.

    Raises:
        ValueError: not readable, or with aliases that stand for more than any config.
    """
    try:
        check_aliases(path)
        return OmegaConf.load(path)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())})") from error


def trained_network(path: Path) -> tuple[Path, dict[str, Any]]:
    """The weights that a run's folder holds, or a file of weights, and the config section of their network.

    Raises:
        FileNotFoundError, ValueError: no weights, or nothing beside them that describes a network that can be trusted.
    """
    weights = file_in(path, tuple(f"{stem}.safetensors" for stem in STEMS), "path") if path.is_dir() else path
    if not weights.is_file():
        raise FileNotFoundError(f"path={path}: no such file or folder")
    is_gan = recorded_at(weights, "config", "discriminator") is not None
    return weights, section_of(weights, "generator" if is_gan else "classifier", "path")


def classes_of(settings: Any) -> Iterator[str]:
    """The classes that settings name, at any depth."""
    if isinstance(settings, Mapping):
        yield from (str(value) for name, value in settings.items() if name == "_target_")
        settings = list(settings.values())
    if isinstance(settings, list):
        for value in settings:
            yield from classes_of(value)
