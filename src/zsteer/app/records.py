"""What a completed run's folder says of how it was made, and what of it may be run again, whoever sent the folder.

Nothing here imports torch, unless a run's own config asks whether there is a GPU.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zsteer.app.composition import CONFIGS, RESOLVERS
from zsteer.runs import TRUSTED, classes_of, read_config
from zsteer.status import read_status

# What of a run's folder is compared beside its `metrics.json`, as far as the run has it, by command.
COMPARED = {
    "steer": ("history.safetensors",),
    "sample": ("noise.safetensors", "images/*.png"),
    "invert": ("noise.safetensors", "pictures.csv"),
    "evaluate": ("attributes.csv", "codes.csv"),
    "compare": ("methods.csv",),
    "directions": ("directions.safetensors", "directions.csv"),
    "train_gan": ("generator.safetensors",),
    "train_classifier": ("classifier.safetensors",),
}


@dataclass(frozen=True)
class Record:
    """What a completed run's folder says of how it was made."""

    folder: Path
    cfg: DictConfig
    words: list[str]
    provenance: Mapping[str, Any]

    @property
    def command(self) -> str:
        """The command that made it."""
        return self.provenance["name"]


def read_record(run: Path, trust: bool) -> Record:
    """
    Args:
        trust: run whatever classes the config names, and interpolate whatever it asks for.

    Raises:
        FileNotFoundError, ValueError: no run, none that is completed, none that can be made again, or one whose config
            names what is not zsteer's; the message says which.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"run={run}: no such folder")
    if (run / "multirun.yaml").is_file():
        jobs = sorted(path.parent for path in run.glob("*/status.json"))
        remedy = f"name one of its jobs, as in run={jobs[0]}" if jobs else "it holds no job"
        raise ValueError(f"run={run} is a sweep; {remedy}")
    status = read_status(run)
    if not status:
        raise FileNotFoundError(f"run={run} has no status.json: it is no run's folder")
    if status["state"] == "running":
        raise ValueError(f"run={run} has not ended: it still runs, or was killed")
    if status["state"] != "completed":
        raise ValueError(f"run={run} has failed: {status.get('error')}")
    about = status.get("provenance")
    if not isinstance(about, Mapping) or not isinstance(about.get("name"), str):
        raise ValueError(f"run={run} does not say how it was made; an earlier version of zsteer made it")
    if about["name"] not in COMPARED:
        raise ValueError(
            f"run={run} is one of {about['name']}, of which nothing is compared; it was {about['command']}"
        )
    if about.get("objects"):
        raise ValueError(f"run={run} was given {', '.join(about['objects'])} by Python, of which there is no record")
    cfg, words = (read_config(run / ".hydra" / f"{name}.yaml") for name in ("config", "overrides"))
    if not trust:
        refuse_strangers(cfg, run)
    OmegaConf.set_struct(cfg, True)
    if cfg.get("logger"):
        cfg.logger = {}  # which write elsewhere, and decide about nothing
    if OmegaConf.select(cfg, "data.download"):
        cfg.data.download = False
    return Record(run, cfg, [str(word) for word in words], about)


def refuse_strangers(cfg: Any, run: Path) -> None:
    """
    Raises:
        ValueError: a config that would run or read what zsteer's own configs do not.
    """
    remedy = "with trust=true, what its author wrote is run"
    for text in _strings(OmegaConf.to_container(cfg)):
        asked = set(re.findall(r"\$\{\s*([\w.]+)\s*:", text)) - {f"zsteer.{name}" for name in RESOLVERS}
        # Of what a comparison's contenders are given, a config is made that cannot be seen yet.
        hidden = re.search(r"_target_\s*['\"]?\s*[:=]|^\W*hydra\b", text)
        if asked or hidden:
            raise ValueError(f"run={run} asks for {text}, which no config of zsteer's does; {remedy}")
    for name in classes_of(OmegaConf.to_container(cfg, resolve=True)):
        if name not in own_classes() and not TRUSTED.fullmatch(name):
            raise ValueError(f"run={run} names {name}, which no config of zsteer's does; {remedy}")


def own_classes() -> frozenset[str]:
    """The classes that zsteer's configs name."""
    texts = (path.read_text(encoding="utf-8") for path in CONFIGS.rglob("*.yaml"))
    return frozenset(name for text in texts for name in re.findall(r"_target_: ([\w.]+)", text))


def _strings(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping | list):
        parts = [*content, *content.values()] if isinstance(content, Mapping) else content
        for part in parts:
            yield from _strings(part)
