"""Every argument of Lightning's Trainer works in each command, or is refused with what to use instead."""

import inspect
import json

import pytest
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from zsteer.app import commands, trainer_words
from zsteer.app.composition import compose
from zsteer.steering.module import TRAINER_SETTINGS
from zsteer.training.fitting import made_by_lightning, trainer_of

ARGUMENTS = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
REFUSED = {"steer": trainer_words.STEERING, "train_classifier": trainer_words.TRAINING, "train_gan": trainer_words.GAN}

FACES = "data.num_train=64 data.num_val=32 data.num_test=32 data.batch_size=16 max_images=64".split()
TINY = {
    "steer": ["num_steps=2", "num_images=2", "judge=none"],
    "train_classifier": [*FACES, "classifier.network.hidden_dim=4"],
    "train_gan": [
        *(*FACES, "judge=none", "scores.num_samples=8"),
        *("generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4"),
    ],
}
# What is not refused: its value in one run of all of them.
COMMON = {
    "accelerator": "cpu",
    "benchmark": "false",  # which "deterministic" rules out
    "detect_anomaly": "true",
    "deterministic": "true",
    "devices": "1",
    "enable_progress_bar": "false",
    "inference_mode": "false",
    "num_nodes": "1",
    "precision": "bf16-mixed",
    "profiler": "simple",
    "strategy": "auto",
}
TRAINED = {
    "enable_model_summary": "false",
    "fast_dev_run": "false",
    "limit_train_batches": "2",
    "log_every_n_steps": "1",
    "max_time": "00:01:00:00",
    "sync_batchnorm": "true",
}
TRIED = {
    "steer": COMMON
    | {
        "callbacks": "[{_target_: pytorch_lightning.callbacks.Timer, duration: '01:00:00:00'}]",
        "plugins": "[{_target_: pytorch_lightning.plugins.io.TorchCheckpointIO}]",
    },
    "train_classifier": COMMON
    | TRAINED
    | {
        "accumulate_grad_batches": "2",
        "gradient_clip_algorithm": "norm",
        "gradient_clip_val": "1.0",
        "precision": "32-true",
        "limit_test_batches": "1",
        "limit_val_batches": "1",
        "max_steps": "3",
        "num_sanity_val_steps": "0",
        "val_check_interval": "1",
    },
    "train_gan": COMMON | TRAINED | {"limit_train_batches": "0.75"},
}
WRONG = {
    "steer": (
        *("accelerator=foo", "accelerator=gpu", "devices=0", "devices=-1", "devices=[]", "devices=foo", "devices=99"),
        *("strategy=foo", "strategy=null", "precision=16", "num_nodes=0", "num_nodes=2", "profiler=foo"),
        *("plugins=[foo]", "callbacks=[foo]", "deterministic=foo", "benchmark=foo", "foo=1"),
        *("_target_=foo", "_target_=collections.UserDict"),
    ),
    "train_classifier": (
        *("accelerator=foo", "strategy=foo", "devices=0", "devices=99", "precision=foo", "max_time=1", "max_time=foo"),
        *("max_steps=0", "max_steps=foo", "limit_train_batches=0", "limit_train_batches=1.5", "limit_val_batches=-1"),
        *("val_check_interval=0", "val_check_interval=-1", "val_check_interval=foo"),
        *("log_every_n_steps=-1", "log_every_n_steps=foo", "num_sanity_val_steps=foo", "accumulate_grad_batches=0"),
        *("gradient_clip_val=0", "gradient_clip_algorithm=foo", "fast_dev_run=foo", "inference_mode=1"),
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where the faces are rendered, once for this file."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def call(command, root):
    """A command with tiny settings."""
    return lambda name, *words: command(
        name, *TINY[name], *([] if name == "steer" else [f"data.root={root}"]), "trainer=cpu", *words
    )


@pytest.mark.parametrize("name", REFUSED)
def test_every_argument_is_either_refused_or_tried(name):
    assert not REFUSED[name].keys() & TRIED[name].keys()
    assert REFUSED[name].keys() | TRIED[name].keys() == ARGUMENTS


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_use(name):
    cfg = compose(name)
    OmegaConf.set_struct(cfg, False)
    for key, remedy in REFUSED[name].items():
        given = OmegaConf.merge(cfg, {"trainer": {key: 1}})
        with pytest.raises(ValueError, match=rf"^trainer\.{key}=1 cannot be set; {remedy}$"):
            getattr(commands, name).check(given)
        ours = remedy.removeprefix("use ")
        assert remedy == trainer_words.LEAVE_OUT or ours.startswith("hydra.") or key_of(cfg, ours)


def key_of(cfg, key):
    """Whether a config has a key, be it null."""
    section, _, name = key.rpartition(".")
    return name in OmegaConf.select(cfg, section) if section else name in cfg


@pytest.mark.parametrize("name", TRIED)
def test_all_others_work_together(name, call):
    ended = call(name, *(f"++trainer.{key}={value}" for key, value in TRIED[name].items()))
    assert ended.code == 0, ended.err
    assert "Profiler Report" in ended.out + ended.err
    if name != "steer":  # the images of two batches of the four, and of three
        figures = json.loads((ended.folder / "metrics.json").read_text())
        assert figures["num_images"] == {"train_classifier": 32, "train_gan": 48}[name]


@pytest.mark.parametrize("name", ["train_classifier", "train_gan"])
def test_a_run_for_trial_takes_one_batch(name, call):
    ended = call(name, "+trainer.fast_dev_run=true", "+trainer.benchmark=true")
    assert ended.code == 0, ended.err
    assert json.loads((ended.folder / "metrics.json").read_text())["num_images"] == 16


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_line_that_names_it(name):
    base = compose(name, ["trainer=cpu"])
    OmegaConf.set_struct(base, False)
    for word in WRONG[name]:
        key, value = word.split("=")
        cfg = base.copy()
        cfg.trainer.update(OmegaConf.from_dotlist([word]))
        with pytest.raises(ValueError, match=rf"^trainer.*{key}|^trainer: .*{value.strip('[]')}") as refusal:
            getattr(commands, name).check(cfg)
            made_by_lightning(cfg.trainer, **TRAINER_SETTINGS) if name == "steer" else trainer_of(cfg, None, [])
        assert "\n" not in str(refusal.value)


def test_what_lightning_sees_when_it_starts_to_fit_is_one_line_too(call):
    monitor = "{_target_: pytorch_lightning.callbacks.LearningRateMonitor}"
    ended = call("steer", f"+trainer.callbacks=[{monitor}]")
    assert ended.code == 1
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        "error: trainer: Cannot use `LearningRateMonitor` callback with `Trainer` that has no logger"
    )


def test_a_fused_optimizer_under_mixed_precision_clips_nothing(call):
    clipped = ["+trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed"]
    clipped += ["+trainer.fast_dev_run=true", "+trainer.enable_model_summary=false"]
    ended = call("train_classifier", *clipped)
    assert ended.code == 1
    assert "add training.optimizer.fused=false" in ended.err.splitlines()[-1]
    assert call("train_classifier", *clipped, "training.optimizer.fused=false").code == 0
