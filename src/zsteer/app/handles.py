"""A run's folder in a config, wherever a file of it is meant: the file takes its place, its network comes with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from zsteer.data import attributes
from zsteer.files import recorded_at
from zsteer.runs import classes_of, file_in, folder_of, section_of
from zsteer.settings import SOURCES

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
    "second_judge": "classifier",
    "classifier.regressor": "classifier",
    "judge.regressor": "classifier",
}


def put_files(cfg: DictConfig, words: Sequence[str] = ()) -> None:
    """Put files in place of the runs' folders that a config names; with its weights comes a run's own network.

    So it does with a run's file of weights, where the words say nothing else about the network.

    Args:
        words: what the command was given, in which nothing about the network of a folder has a meaning.

    Raises:
        FileNotFoundError, ValueError: a folder holds no such file, or its network cannot be trusted.
    """
    for key, names in FILES.items():
        given = OmegaConf.select(cfg, key)
        if given not in SOURCES and (folder := folder_of(given)) is not None:
            OmegaConf.update(cfg, key, str(file_in(folder, names, key)))
    for key, trained_as in TRAINED_AS.items():
        section = OmegaConf.select(cfg, key)
        if not isinstance(section, DictConfig) or OmegaConf.is_missing(section, "checkpoint"):
            continue
        given = section.get("checkpoint")
        if given is None:
            continue
        if not isinstance(given, str):
            raise ValueError(f"{key}.checkpoint={given} must be a path; of a file that is called so, write '{given}'")
        said = [word for word in words if word.lstrip("+~").startswith((f"{key}=", f"{key}."))]
        if (folder := folder_of(given)) is not None:
            weights = file_in(folder, (f"{trained_as}.safetensors",), f"{key}.checkpoint")
            for word in said:
                if word.lstrip("+~").startswith((f"{key}.network.", f"{key}.attributes")):
                    raise ValueError(
                        f"{word} has no meaning beside {key}.checkpoint={folder}, a run of its own settings"
                    )
            replace_network(section, trained_as, weights, key)
        elif said and all(word.startswith(f"{key}.checkpoint=") for word in said):
            if recorded_at(given, "config", trained_as) is not None:
                replace_network(section, trained_as, Path(given), key)


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


def _names(names: Any) -> Any:
    return attributes.resolve(names) if names == "celeba" else names and list(map(attributes.canonical, names))
