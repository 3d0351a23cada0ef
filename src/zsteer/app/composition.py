"""Configs from words: where they lie, how a script's is composed, what its run is called.

Nothing here imports torch, so that `--help` and config errors come at once.
"""

import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from zsteer.data.attributes import resolve, steerable
from zsteer.files import BUNDLE, check_aliases, is_main_process, slug
from zsteer.runs import is_run
from zsteer.settings import JUDGES, NETWORKS
from zsteer.sweeps.hydra_internals import hydra_of, words_of, written

PACKAGE = Path(__file__).parents[1]
# A wheel carries the configs inside the package; a clone has them at its root.
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parents[1] / "configs"


def run_name() -> str:
    """Date and time, what was asked for, and six random digits, by which two runs of one second differ.

    From the command line, not from `hydra.overrides`, which in a sweep differ from job to job. The other processes of a
    distributed run, which its first one starts, use the same name.
    """
    if not is_main_process() and "ZSTEER_RUN" in os.environ:
        return os.environ["ZSTEER_RUN"]
    words = [re.sub(r"(?<=^experiment=)\w+/", "", word) for word in sys.argv[1:]]  # by its name alone
    overrides = [word for word in words if "=" in word and not word.startswith(("-", "hydra"))]
    name = slug([slug(overrides, longest=60), secrets.token_hex(3)])
    os.environ["ZSTEER_RUN"] = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{name}"
    return os.environ["ZSTEER_RUN"]


def job_name(words: Sequence[str]) -> str:
    """A job of a sweep as a file name: its words, what was swept before what the whole command was given."""
    return slug(sorted(words, key=lambda word: word in sys.argv))


def explained(script: str) -> str:
    """What a script's config says of its keys, without the choice of groups and Hydra's own section; for `--help`."""
    blocks = (CONFIGS / f"{script}.yaml").read_text(encoding="utf-8").split("\n\n")
    head, _, _ = blocks[0].partition("defaults:")
    own = [block for block in blocks[1:] if not block.startswith("hydra:")]
    return "\n\n".join([head.rstrip(), *own]).replace("$", "$$")  # which Hydra takes for its own


@cache
def groups_of(script: str) -> dict[str, str]:
    """The groups of a script's config, without those of presets and of folders, and what it chooses of each."""
    defaults = OmegaConf.load(CONFIGS / f"{script}.yaml").defaults
    chosen = {key: value for default in defaults if not isinstance(default, str) for key, value in default.items()}
    groups = {key.removeprefix("override "): value for key, value in chosen.items()}
    return {group: choice for group, choice in groups.items() if group not in ("experiment", "hydra")}


def choices(script: str) -> str:
    """What there is to choose in each of a script's groups, the user's own too, a line each; for `--help`."""
    loader = GlobalHydra.instance().config_loader()
    lines = [f"{group}: {', '.join(loader.get_group_options(group))}" for group in groups_of(script)]
    presets = loader.get_group_options(f"experiment/{script}")
    lines += [f"experiment: {', '.join(presets)}"] if presets else []
    head = "\nA config of each group is chosen by group=name, yours from a folder by --config-dir:\n\n"
    return head + "\n".join(lines) + "\n" if lines else ""


def accelerator() -> str:
    """`gpu` where torch sees a CUDA device, else `cpu`."""
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def widths_up_to(size: int, widths: Sequence[int]) -> list[int]:
    """The first of a network's widths at 4, 8, 16, ... pixels, up to images of `size`.

    Raises:
        ValueError: that is none of these sizes.
    """
    sizes = [4 << level for level in range(1, len(widths))]
    if size not in sizes:
        raise ValueError(f"data.size={size} must be one of {', '.join(map(str, sizes))}, or give network.widths")
    return list(widths[: sizes.index(size) + 2])


# Commands of a folder, and its key.
OF_FOLDERS = {"reproduce": "run", "summarize": "sweep"}


def num_told(condition: Any, description: Mapping[str, Any] | None) -> int:
    """How many numbers a discriminator is told of an image."""
    named = len(resolve(condition, "gan.condition")) if condition else 0
    return named + (0 if description is None else len(steerable(description["classifier"], "classifier")))


RESOLVERS = {
    "accelerator": accelerator,
    "choices": choices,
    "explained": explained,
    "job_name": job_name,
    "name_of": lambda path: None if path is None else Path(path).name,
    "reciprocal": lambda number: 1 / number,
    "times": lambda one, other: one * other,
    "outputs": lambda attributes: len(resolve(attributes)),
    "told": num_told,
    "widths": widths_up_to,
    "bundled": lambda name: str(BUNDLE / name),
}
for _name, _function in RESOLVERS.items():
    OmegaConf.register_new_resolver(f"zsteer.{_name}", _function, replace=True)
OmegaConf.register_new_resolver("zsteer.run_name", run_name, use_cache=True, replace=True)


def experiments(script: str) -> list[str]:
    """The names of a script's presets."""
    return sorted(path.stem for path in (CONFIGS / "experiment" / script).glob("*.yaml"))


def in_full(script: str, words: Sequence[str]) -> list[str]:
    """The words of a command line with short forms in full.

    `experiment=tutorial` means `steer`'s own preset, and `generator=RUN`, a folder, `generator.checkpoint=RUN`. What
    `reproduce` and `summarize` are given without a key is their folder.

    Raises:
        ValueError: what is chosen of a group is no name, which Hydra would not say of which group.
    """
    known = experiments(script)
    bare = {word for word in words_of(words) if "=" not in word and not word.startswith("~")}

    def full(word: str) -> str:
        if script in OF_FOLDERS and word in bare:
            return f"{OF_FOLDERS[script]}={written(word)}"
        key, equals, names = word.partition("=")
        if (group := key.lstrip("+")) in ("experiment", *groups_of(script)):
            refuse_nameless(group, word)
        if key == "experiment" and equals:
            return f"{key}={','.join(f'{script}/{name}' if name in known else name for name in names.split(','))}"
        if key not in {*NETWORKS, *JUDGES}:
            return word
        unquoted = names.strip("'\"")
        runs = [unquoted] if is_run(unquoted) else names.split(",")
        return f"{key}.checkpoint={','.join(map(written, runs))}" if all(map(is_run, runs)) else word

    return [full(word) for word in words]


def refuse_nameless(group: str, word: str) -> None:
    """
    Raises:
        ValueError: a word chooses of a group what is no name; Hydra would not say of which group.
    """
    try:
        override = OverridesParser.create().parse_override(word)
        parts = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    except HydraException:  # which Hydra says again, with the place in the word; or a glob, which are names
        return
    names = [name for part in parts for name in (part if isinstance(part, list) else [part])]
    if not all(isinstance(name, str) for name in names):
        own = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
        there = f"; there are {', '.join(own)}" if own else ""
        raise ValueError(f"{word} must be the name of a config of {group}, or a list of names{there}")


@cache
def known_keys(script: str) -> frozenset[str]:
    """The keys of a script's config, read from its file: to compose it once more would take a tenth of a second."""
    content = OmegaConf.load(CONFIGS / f"{script}.yaml")
    groups = {key for default in content.defaults if not isinstance(default, str) for key in default}
    placed = {group for group in groups if (CONFIGS / group).is_dir() and not _packages(CONFIGS / group)}
    return frozenset({*map(str, content), *placed} - {"defaults", "hydra"})


def _packages(group: Path) -> bool:
    """Whether a group's files say where in the config they belong, which else is under the group's name."""
    return all(path.read_text(encoding="utf-8").startswith("# @package") for path in group.rglob("*.yaml"))


@contextmanager
def own_hydra(config_dir: str | Path | None = None) -> Iterator[None]:
    """Have `hydra.compose` find our configs and those in `config_dir`, whatever Hydra application this runs in."""
    folders = [CONFIGS] if config_dir is None else [CONFIGS, Path(config_dir).absolute()]
    with hydra_of(folders):
        yield


@contextmanager
def naming_unreadable(folder: str | Path | None) -> Iterator[None]:
    """Name the config in a user's folder that cannot be read, where YAML and OmegaConf do not.

    Raises:
        ValueError: a config that is not UTF-8, or nests or is repeated without end.
    """
    for depth in ("*", "*/*", "*/*/*") if folder else ():  # no further, so that a folder of runs may lie there too
        for path in Path(folder or ".").glob(f"{depth}.yaml"):
            with suppress(OSError):  # of a file that this command may not even choose
                check_aliases(path)
    try:
        yield
    except (RecursionError, UnicodeDecodeError) as error:
        for path in sorted(Path(folder).rglob("*.yaml")) if folder else ():
            try:
                OmegaConf.load(path)
            except Exception as reason:
                if type(reason) is not type(error):  # another file with a fault of its own
                    continue
                fault = "nests too deeply, or contains itself"
                if isinstance(reason, UnicodeDecodeError):
                    fault = f"must be text in UTF-8; its byte {reason.start} is not"
                raise ValueError(f"{path} {fault}") from error
        raise


def compose(
    script: str, words: Sequence[str] = (), config_dir: str | Path | None = None, inside: bool = False
) -> DictConfig:
    """The config that a script would run with.

    Args:
        config_dir: a folder with configs of the user's own, as after `--config-dir`.
        inside: compose by the Hydra that is at work, that of a running command or of `own_hydra`.
    """
    with nullcontext() if inside else own_hydra(config_dir):
        return hydra.compose(script, in_full(script, words))
