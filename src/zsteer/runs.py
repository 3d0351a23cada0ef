"""A run's folder as the handle to what the run made: weights with their network, checkpoint, noise, directions.

Nothing here imports torch, so that a folder that holds no such thing is reported at once.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from zsteer.data import attributes
from zsteer.files import recorded_at

# The keys of a config that take a file of a run, and what the file is called there; of several the first that exists.
FILES = {
    "ckpt_path": ("checkpoints/last.ckpt",),
    "noise": ("noise.safetensors", "history.safetensors"),
    "source": ("directions.safetensors",),
    "method.source": ("directions.safetensors",),
}
# The sections of a config that are networks', and which section they were in the run that trained them.
TRAINED_AS = {
    "generator": "generator",
    "classifier": "classifier",
    "judge": "classifier",
    "classifier.regressor": "classifier",
    "judge.regressor": "classifier",
}
STEMS = ("generator", "classifier")  # of the weights that runs leave
# The classes that a file may name. Any other could be made to do anything, and so could what their modules import.
TRUSTED = re.compile(r"(zsteer\.networks|torchvision\.models)\.\w+")


def put_files(cfg: DictConfig, words: Sequence[str] = ()) -> None:
    """Put files in place of the runs' folders that a config names; with its weights comes a run's own network.

    Args:
        words: what the command was given, in which nothing about such a network has a meaning.

    Raises:
        FileNotFoundError, ValueError: a folder holds no such file, or its network cannot be trusted.
    """
    for key, names in FILES.items():
        if (folder := folder_of(OmegaConf.select(cfg, key))) is not None:
            OmegaConf.update(cfg, key, str(file_in(folder, names, key)))
    for key, trained_as in TRAINED_AS.items():
        section = OmegaConf.select(cfg, key)
        if not isinstance(section, DictConfig) or OmegaConf.is_missing(section, "checkpoint"):
            continue
        if (folder := folder_of(section.get("checkpoint"))) is not None:
            weights = file_in(folder, (f"{trained_as}.safetensors",), f"{key}.checkpoint")
            for word in words:
                if word.lstrip("+~").startswith((f"{key}.network.", f"{key}.attributes")):
                    raise ValueError(
                        f"{word} has no meaning beside {key}.checkpoint={folder}, a run of its own settings"
                    )
            replace_network(section, trained_as, weights, key)


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
    unfinished = (folder / FILES["ckpt_path"][0]).is_file()
    remedy = f"go on with that run by ckpt_path={folder}" if unfinished else "give the folder of a run that has one"
    raise FileNotFoundError(f"{key}={folder}: the folder has no {' or '.join(names)}; {remedy}")


def replace_network(section: DictConfig, trained_as: str, weights: Path, key: str) -> None:
    """Make a network's section of a config that of a run: its class, settings, attributes and weights.

    A regressor stays beside its classifier only where the attributes stay too: it would know nothing of other data.
    """
    named = set(classes_of(OmegaConf.to_container(section)))
    own = section_of(weights, trained_as, key, known=named)
    with open_dict(section):
        if "attributes" in own and _names(own["attributes"]) != _names(section.get("attributes")):
            section.attributes = own["attributes"]
            section.pop("regressor", None)
        section.network = own["network"]
        section.checkpoint, section.checkpoint_key = str(weights), None


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
    return dict(section)


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


def _names(names: Any) -> Any:
    return attributes.resolve(names) if names == "celeba" else names and list(map(attributes.canonical, names))
