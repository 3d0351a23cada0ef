"""Every command from Python: results instead of files, and nothing of the caller's changed."""

import json
import os
import signal
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import OmegaConf
from places import GOLDEN_NETWORKS
from safetensors.torch import load_file

import zsteer
from zsteer.app.composition import compose
from zsteer.locks import in_use
from zsteer.steering.module import LatentSteering
from zsteer.sweeps.hydra_internals import word_of

STEER = (*GOLDEN_NETWORKS, "num_images=2", "num_steps=2", "trainer=cpu")
SMALL = (
    "data.num_train=16",
    "data.num_val=8",
    "data.num_test=8",
    "data.batch_size=8",
    "max_images=8",
    "trainer=cpu",
    "trainer.precision=32-true",
)
GAN = (*SMALL, "judge=none", "generator.network.hidden_dim=2", "discriminator.network.hidden_dim=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where drawn faces are rendered, once for this file."""
    return f"data.root={tmp_path_factory.mktemp('data')}"


@pytest.fixture
def state():
    """What a caller has and would miss, as something to compare."""

    def snapshot():
        return {
            "numbers": (
                np.random.get_state(legacy=False)["state"]["key"].tolist(),
                torch.get_rng_state().tolist(),
            ),
            "environment": dict(os.environ),
            "words": list(sys.argv),
            "filters": list(warnings.filters),
            "backend": matplotlib.get_backend(auto_select=False),
            "hydra": (GlobalHydra.instance().hydra, VersionBase.instance().getbase()),
            "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
            "folder": os.listdir(),
        }

    return snapshot


def test_steering_leaves_no_file_and_nothing_changed(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()
    steered = zsteer.steer(*STEER, target="Male", penalty_weight=0.5)
    assert state() == before
    assert (steered.settings["target"], steered.settings["penalty_weight"]) == ("Male", 0.5)
    assert not torch.equal(steered.history.noise[0], steered.history.noise[-1])


def test_lightning_advertises_nothing(root, caplog):
    zsteer.train_gan(*GAN, root, "trainer.log_every_n_steps=1")
    assert not [record for record in caplog.records if "litlogger" in record.message or "Tip" in record.message]


def test_pythons_own_random_numbers_are_left_too():
    program = (
        "import random, zsteer; before = random.getstate()\n"
        f"zsteer.steer(*{STEER!r})\n"
        "assert random.getstate() == before"
    )  # not here, where the checks of types draw from them
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_training_leaves_no_file_and_nothing_changed(state, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()
    gan = zsteer.train_gan(*GAN, root, seed=3)
    classifier = zsteer.train_classifier(*SMALL, root, "classifier.network.hidden_dim=2")
    assert state() == before
    assert gan.metrics["num_images"] == 8
    assert gan.config["seed"] == 3
    assert gan.picture is not None and gan.picture.width > 8 * 64
    assert gan.network(torch.zeros(1, 64)).shape == (1, 3, 64, 64)
    assert not gan.network.training
    assert 0 <= classifier.metrics["test_accuracy"] <= 1
    assert classifier.network(torch.zeros(1, 3, 64, 64)).shape == (1, 40)


def test_evaluations_give_tables(state, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()
    data = (root, *SMALL[:3])
    scores = zsteer.evaluate(*data, what="classifier")
    contenders = {"up": ["method=direction", "num_steps=2", "step_size=2"]}
    compared = zsteer.compare(*data, "~experiment", targets=["Smiling"], num_images=2, contenders=contenders)
    assert state() == before
    assert scores.table.shape[0] == 40
    assert scores.metrics["accuracy"] == pytest.approx(scores.table["accuracy"].mean(), abs=1e-6)
    assert [(row["contender"], row["target"]) for row in compared.rows] == 3 * [("up", "Smiling")]


def test_directions_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = zsteer.directions(source="sefa")
    assert (named.directions.shape, len(named.table), os.listdir()) == ((40, 256), 32, [])


def test_inversion_leaves_no_file_and_nothing_changed(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()
    picture = torch.zeros(3, 64, 64)
    found = zsteer.invert(picture, *GOLDEN_NETWORKS, "trainer=cpu", num_samples=8, starts=2, num_steps=2)
    assert state() == before
    assert torch.equal(picture, torch.zeros(3, 64, 64))
    assert (found.noise.shape, found.images.shape) == ((1, 64), (1, 3, 64, 64))
    assert found.metrics["starts"] == 2


def test_a_loop_draws_its_own_random_numbers():
    torch.manual_seed(1)
    expected = [torch.randn(2) for _ in range(2)]
    torch.manual_seed(1)
    for numbers in expected:
        assert torch.equal(torch.randn(2), numbers)
        zsteer.steer(*STEER)


def test_ctrl_c_is_a_keyboard_interrupt(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(LatentSteering, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):  # of which Lightning makes an exit
        zsteer.steer(*STEER)
    assert signal.getsignal(signal.SIGINT) == before


def test_nothing_is_changed_by_a_call_that_fails(state, root):
    torch.manual_seed(5)
    before = state()
    with pytest.raises(ValueError, match="test split has 3 images; FID and the like need more"):
        zsteer.evaluate(root, *SMALL[:2], "data.num_test=3", what="generator", num_images=8)
    assert state() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.run.dir=elsewhere"], "hydra.run.dir=elsewhere has no meaning in a call from Python; .* folder="),
        (["+hydra.sweep.dir=elsewhere"], "has no meaning in a call from Python"),
        (["experiment=sweep_small"], "this preset is a sweep"),
    ],
)
def test_words_about_folders_and_sweeps_are_for_the_command_line(words, said):
    with pytest.raises(ValueError, match=said):
        zsteer.steer(*words)


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="folder=.* cannot be written"):
        zsteer.steer(*STEER, folder=tmp_path / "file" / "run")
    with pytest.raises(FileNotFoundError, match="config_dir=.*: no such folder"):
        zsteer.steer(*STEER, config_dir=tmp_path / "nowhere")


def test_a_sweep_is_summarized(tmp_path):
    for number, target in enumerate(["Smiling", "Male"]):
        zsteer.steer(*STEER, target=target, folder=tmp_path / f"{number}_{target}")
    summary = zsteer.summarize(sweep=tmp_path)
    assert summary.metrics == {"completed": 2}
    assert list(summary.table["target"]) == ["Smiling", "Male"]


def test_it_works_within_an_application_of_hydras_and_under_inference_mode(tmp_path):
    (tmp_path / "theirs.yaml").write_text("a: 1")
    with initialize_config_dir(str(tmp_path), version_base="1.2"), torch.inference_mode():
        steered = zsteer.steer(*STEER)
        inverted = zsteer.invert(torch.zeros(3, 64, 64), *GOLDEN_NETWORKS, "trainer=cpu", num_samples=8, num_steps=2)
        assert hydra_compose("theirs").a == 1
        assert torch.is_inference_mode_enabled()
    assert not torch.equal(steered.history.noise[0], steered.history.noise[-1])
    assert inverted.losses[-1] < inverted.losses[0]


def test_a_given_folder_becomes_a_runs(tmp_path):
    folder = tmp_path / "run"
    steered = zsteer.steer(*STEER, folder=folder)
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events")}
    assert names == {".hydra", "history.safetensors", "metrics.json", "status.json", "steering.png"}
    assert json.loads((folder / "metrics.json").read_text()) == steered.metrics
    assert json.loads((folder / "status.json").read_text())["state"] == "completed"
    assert torch.equal(load_file(folder / "history.safetensors")["noise"][-1], steered.history.noise[-1])
    assert OmegaConf.load(folder / ".hydra" / "config.yaml") == compose("steer", STEER)
    with pytest.raises(ValueError, match="folder=.* already holds a completed run"):
        zsteer.steer(*STEER, folder=folder)


def test_a_given_folder_that_is_in_use_is_refused(tmp_path):
    with in_use(tmp_path, "folder"), pytest.raises(ValueError, match=f"^folder={tmp_path} is in use by another run"):
        zsteer.steer(*STEER, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_recorded_in_a_given_folder(root, tmp_path):
    with pytest.raises(ValueError, match="^gan.penalty_every=0 must be a whole number, 1 or more$"):
        zsteer.train_gan(*GAN, root, "gan.penalty_every=0", folder=tmp_path / "run")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", "gan.penalty_every=0 must be a whole number, 1 or more")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": "Smilling"}, "target='Smilling' is not an attribute of the classifier; did you mean 'Smiling'?"),
        ({"targt": "Smiling"}, "Could not override 'targt'"),
        ({"target": "Smiling+"}, "target='' is not an attribute of the classifier"),
        ({"method": "magic"}, "magic"),
        ({"objective": 3}, "objective=3 must be the name of a figure, or a list of names"),
        (
            {"method": 3},
            "method=3 must be the name of a config of method, or a list of names; there are ascent, best_of",
        ),
        ({"trainer": [None]}, "trainer=[null] must be the name of a config of trainer, or a list of names"),
        ({"generator.checkpoint": 3}, "generator.checkpoint=3 must be a path; of a file that is called so, write '3'"),
        ({"generator.network.width": 0}, "generator.network.width=0 must be a whole number, 1 or more"),
        ({"generator.network.network.z_dim": 0}, "generator.network.network.z_dim=0 must be a whole number, 1 or more"),
        ({"steering._target_": "torch.nn.Linear"}, "steering._target_=torch.nn.Linear must be LatentSteering or a"),
        ({"logger": "csv"}, "logger.csv writes into the run's folder; name one by folder="),
        ({"generator.network._target_": "zsteer.networks.Generatr"}, "Generatr"),
    ],
)
def test_what_is_wrong_is_one_line_of_a_value_error(settings, said):
    with pytest.raises(ValueError) as caught:
        zsteer.steer(**settings)
    assert said in str(caught.value)


def test_configs_are_found_in_a_folder_of_any_name(tmp_path):
    folder = tmp_path / "O'Brien, (1)=[x]" / "conf"
    (folder / "method").mkdir(parents=True)
    (folder / "method" / "mine.yaml").write_text("defaults: [ascent]\nname: mine\n")
    steered = zsteer.steer(*STEER, method="mine", config_dir=folder)
    assert steered.settings["method"] == "mine"


def test_a_method_in_the_older_form_sets_steers_keys_itself(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "older.yaml").write_text(
        "# @package _global_\nnum_steps: 3\nstep_size: 0.25\nshow_every: 2\npreserve: all\n"
        "method:\n  _target_: zsteer.steering.methods.Ascent\n  name: older\n"
        "  optimizer: {_target_: torch.optim.SGD, _partial_: true, lr: 1}\n"
    )
    steered = zsteer.steer(*GOLDEN_NETWORKS, "num_images=2", "trainer=cpu", method="older", config_dir=tmp_path)
    assert (steered.settings["num_steps"], steered.settings["step_size"]) == (3, 0.25)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.25,
        1e-7,
        "plain",
        "two words",
        "it's, [this] {and}: 'that' = \\ x",
        "ends with \\",
        "a\\'b",
        np.float32(0.5),
        torch.tensor(3),
        "null",
        "",
        [1, "b c", None],
        {"Male": False, "Young": True},
    ],
)
def test_settings_by_name_arrive_as_they_are(value):
    key = "where" if isinstance(value, dict) else "noise"
    assert compose("steer", [word_of(key, value)])[key] == value
