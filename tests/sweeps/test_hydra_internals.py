"""What is used of Hydra beyond its documented interface does what it is used for; run it with its next release too."""

import copy
import sys

import hydra
import omegaconf.base
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import OmegaConf
from places import ROOT

from zsteer.app.composition import compose, own_hydra
from zsteer.sweeps.hydra_internals import (
    Composer,
    Hydra,
    composed_once,
    hydra_of,
    interpolations_parsed_once,
    options_of_command,
    word_of,
    yaml_of,
)


def test_private_parts_of_hydra_are_used_in_two_files_only():
    users = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*.py")
        if "hydra._internal" in path.read_text()
    }
    assert users == {"zsteer/sweeps/hydra_internals.py", "hydra_plugins/zsteer_launchers.py"}


def test_configs_are_looked_for_in_each_folder_in_turn_and_hydra_is_left_as_it_was(tmp_path):
    folders = [tmp_path / "first", tmp_path / "it's, (2)"]
    for folder in folders:
        folder.mkdir()
        (folder / "both.yaml").write_text(f"where: {folder.name[:2]}")
        (folder / f"{folder.name[:2]}.yaml").write_text("a: 1")
    before = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
    with hydra_of(folders):
        assert hydra.compose("both").where == "fi"
        assert hydra.compose("it").a == 1
        with hydra_of(folders[1:]):
            assert hydra.compose("both").where == "it"
        assert hydra.compose("both").where == "fi"
    assert (GlobalHydra.instance().hydra, VersionBase.instance().getbase()) == before


@pytest.mark.parametrize(
    ("words", "composed"),
    [
        ([], False),
        (["target=Male", "hydra.run.dir=here", "hydra/launcher=basic"], False),
        (["experiment=steer/sweep_small"], True),
        (["+experiment=mine"], True),
        (["hydra.mode=MULTIRUN"], True),
        (["hydra=runs"], True),
    ],
)
def test_a_config_is_composed_for_its_mode_only_where_the_words_may_set_it(monkeypatch, words, composed):
    calls = []
    monkeypatch.setattr(Hydra, "compose_config", lambda self, **settings: calls.append(settings))
    with composed_once(words):
        Hydra.get_mode(object.__new__(Hydra), config_name="steer", overrides=words)
    assert bool(calls) == composed


def test_the_store_of_configs_is_one_and_what_it_gives_is_a_copy():
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store
    store.load("hydra/config.yaml").node.mode = RunMode.MULTIRUN
    assert store.load("hydra/config.yaml").node.mode is None


@pytest.mark.parametrize(
    "words",
    [
        ["target=Male", "penalty_weight=0.5"],
        ["method=tutorial", "num_steps=4"],
        ["num_steps=4", "method=tutorial", "method.optimizer.momentum=0"],
        ["experiment=steer/tutorial", "target=Bangs", "where={Male: false}"],
        ["++trainer.max_depth=1", "trainer.max_depth=2"],
    ],
)
def test_a_job_is_composed_as_hydra_would(words):
    with own_hydra():
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("steer", [], run_mode=RunMode.MULTIRUN)
        composer = Composer(loader, master)
        composer.compose(["target=Young"])
        quick, whole = composer.compose(words), loader.load_sweep_config(master, words)
        assert OmegaConf.to_yaml(quick) == OmegaConf.to_yaml(whole)


@pytest.mark.parametrize(
    "text",
    ["plain/path-1.png", "Größe/müller", "写真", "a b", "it's", 'say "so"', "x=[1,2]", "null", "-1", "a\\'b", "~/x"],
)
def test_a_word_says_what_was_meant(text):
    override = OverridesParser.create().parse_override(word_of("noise", text))
    assert override.value() == text


def test_a_child_is_told_where_its_configs_are(monkeypatch):
    words = ["--config-path", "/theirs", "-cn", "other", "--config-dir=mine", "-m", "seed=0,1"]
    monkeypatch.setattr(sys, "argv", ["train_gan.py", *words])
    assert options_of_command() == ["--config-path=/theirs", "--config-dir=mine", "--config-name=other"]


@pytest.mark.parametrize("script", ["steer", "train_gan"])
def test_configs_are_written_as_omegaconf_writes_them(script):
    words = ["+odd={text: '1e3', yes: 'yes', long: '" + "word " * 40 + "', none: null, umlaut: 'äöü λ', n: 1e-5}"]
    cfg = compose(script, words)
    assert yaml_of(cfg) == OmegaConf.to_yaml(cfg)


def test_what_is_parsed_once_says_the_same():
    cfg = OmegaConf.create({"a": 1, "b": "${a}", "c": "x${b}y", "d": "${oc.env:HOME,none}"})
    expected = OmegaConf.to_container(cfg, resolve=True)
    parse = omegaconf.base.parse
    with interpolations_parsed_once():
        assert [OmegaConf.to_container(cfg, resolve=True) for _ in range(2)] == [expected] * 2
        cfg.a = 2
        assert (cfg.b, cfg.c) == (2, "x2y")
    assert omegaconf.base.parse is parse
