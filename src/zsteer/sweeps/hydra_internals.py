"""What is used of Hydra beyond its documented interface, but for the sweeper that `hydra_plugins` extends."""

import copy
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import omegaconf.base
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase, setbase
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import OmegaConfDumper

VERSION_BASE = "1.3"

# There is one store, which gives out copies of its configs; Hydra copies the whole of it for each config that it
# composes and each group that it lists.
ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def hydra_of(folders: Sequence[Path]) -> Iterator[None]:
    """Have `hydra.compose` look for configs in some folders, the first of them first; then all is as it was.

    `hydra.initialize_config_dir` takes one folder, needs its name without quotation marks, and refuses to work inside
    an application of Hydra's.
    """
    outer, outer_base = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
    outer_name = JobRuntime.instance().get("name")
    search_path = create_config_search_path(str(folders[0]))
    for folder in folders[1:]:
        search_path.prepend("command-line", f"file://{folder}", anchor="schema")  # which has to be the last
    GlobalHydra.instance().clear()
    try:
        setbase(VERSION_BASE)
        Hydra.create_main_hydra2(task_name="zsteer", config_search_path=search_path)
        yield
    finally:
        GlobalHydra.instance().hydra = outer
        VersionBase.instance().version_base = outer_base
        JobRuntime.instance().set("name", outer_name)


@contextmanager
def composed_once(words: Sequence[str]) -> Iterator[None]:
    """Have Hydra compose a command's config once: to see whether `hydra.mode` makes it a sweep, it does so before.

    Only an experiment, these words themselves or a config of the user's own can make it one.
    """
    if own_configs() or any(re.match(r"[+~]*(experiment|hydra(\.mode)?)(@|=|$)", word) for word in words):
        yield
        return
    get_mode, Hydra.get_mode = Hydra.get_mode, lambda *_, **__: None
    try:
        yield
    finally:
        Hydra.get_mode = get_mode


@contextmanager
def interpolations_parsed_once() -> Iterator[None]:
    """Have OmegaConf keep what it has parsed: it parses an interpolation anew, for 0.2 ms, whenever it is read."""
    parse = omegaconf.base.parse
    omegaconf.base.parse = lru_cache(1024)(parse)
    try:
        yield
    finally:
        omegaconf.base.parse = parse


def options_of_command() -> list[str]:
    """The options by which this process was told where its configs are, for its children."""
    given, _ = get_args_parser().parse_known_args(sys.argv[1:])
    options = [f"--config-path={given.config_path}"] if given.config_path else []
    options += [f"--config-dir={given.config_dir}"] if given.config_dir else []
    return options + ([f"--config-name={given.config_name}"] if given.config_name else [])


def own_configs() -> str | None:
    """The folder of a user's own configs that this process was given."""
    given, _ = get_args_parser().parse_known_args(sys.argv[1:])
    return given.config_dir or given.config_path


def words_of(line: Sequence[str]) -> list[str]:
    """The words of a command line that are neither options nor their values."""
    return get_args_parser().parse_known_args(list(line))[0].overrides


class Composer:
    """Composes the jobs of a sweep; overrides that only set values are set in a copy of what was composed before.

    Hydra takes 40 to 100 ms to compose a config of ten groups, and 5 ms to copy it.
    """

    def __init__(self, loader: Any, master: DictConfig):
        self.loader, self.master = loader, master
        self.parser = OverridesParser.create()
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._plain: dict[str, bool] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job, as Hydra would compose it."""
        parsed = self.parser.parse_overrides(list(overrides))
        # Adding and deleting keys depends on their order, so such a job is composed whole.
        ordered = all(override.type == OverrideType.CHANGE for override in parsed)
        values = [override for override in parsed if ordered and self._sets_value(override)]
        chosen = tuple(word for word, override in zip(overrides, parsed, strict=True) if override not in values)
        if chosen not in self._composed:
            self._composed[chosen] = self.loader.load_sweep_config(self.master, list(chosen))
        config = copy.deepcopy(self._composed[chosen])
        OmegaConf.copy_cache(from_config=self.master, to_config=config)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        own = [override for override in parsed if not override.is_hydra_override()]
        config.hydra.overrides.task = [override.input_line for override in own]
        config.hydra.job.override_dirname = get_overrides_dirname(own, **config.hydra.job.config.override_dirname)
        return config

    def _sets_value(self, override: Override) -> bool:
        key = override.key_or_group
        if key not in self._plain:
            group = self.loader.get_group_options(key, results_filter=None)  # choices, or groups of choices
            self._plain[key] = not override.is_hydra_override() and not group
        return self._plain[key] and override.package is None


class Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # pyright: ignore[reportGeneralTypeIssues]
    """OmegaConf's, where libyaml writes, which takes a quarter of the time."""


Dumper.add_representer(str, OmegaConfDumper.str_representer)


def yaml_of(config: Any) -> str:
    """What `OmegaConf.to_yaml` makes of a config, or of a list or a dict."""
    plain = OmegaConf.to_container(config, enum_to_str=True) if OmegaConf.is_config(config) else config
    return yaml.dump(plain, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=Dumper)


def word_of(key: str, value: Any) -> str:
    """A setting as a word of the command line, in Hydra's grammar."""
    return f"{key}={written(value)}"


def written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if hasattr(value, "tolist"):  # NumPy's and torch's arrays and scalars
        value = value.tolist()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(written, value)) + "]"
    text = str(value)
    bare = re.fullmatch(r"/?[A-Za-z_][\w./+-]*", text, re.ASCII)
    if bare and text.lower() not in ("null", "true", "false", "inf", "nan"):
        return text  # bare, because Hydra takes no quoted name of a config group's choice
    quoted = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'")
    return f"'{quoted}'"
