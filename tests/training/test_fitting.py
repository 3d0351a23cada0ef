"""What ends a training before its time, and the callbacks that one can choose."""

import json
import os
import shlex
import signal

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zsteer.classifier import module as classifier_module
from zsteer.classifier.module import ClassifierModule
from zsteer.gan.callbacks import SampleGrid
from zsteer.gan.module import GANModule
from zsteer.status import Terminated
from zsteer.training.callbacks import LastCheckpoint

FACES = ("data.num_train=64", "data.num_val=32", "data.num_test=16", "max_images=64", "data.batch_size=16")
QUICK = (*FACES, "trainer=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=1")
SILENT = "+trainer.enable_progress_bar=false"
WORDS = {
    "train_gan": (
        *("generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4"),
        *("scores.num_samples=16", "scores.every_images=16"),
    ),
    "train_classifier": ("classifier.network.hidden_dim=4",),
}
WEIGHTS = {"train_gan": "generator.safetensors", "train_classifier": "classifier.safetensors"}


@pytest.fixture
def run(command, tmp_path_factory):
    """Run a small training as the command line would."""

    def call(name, *words):
        root = tmp_path_factory.getbasetemp() / "fitted"
        return command(name, *QUICK, *WORDS[name], f"data.root={root}", *words)

    return call


def events_of(folder, tag):
    return {event.step: event.value for event in EventAccumulator(str(folder)).Reload().Scalars(tag)}


def ctrl_c(monkeypatch, owner, name, at):
    """Send Ctrl-C in the middle of a function's call number `at`."""
    calls, original = [], getattr(owner, name)

    def interrupted(*args, **more):
        calls.append(None)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **more)

    monkeypatch.setattr(owner, name, interrupted)


# A GAN's, in the middle of its second step, and in its last figures, behind its last step; a classifier's second step,
# and the validation after its first, another having been before.
MOMENTS = {
    "a GAN's step": ("train_gan", GANModule, "generator_loss", 2, [], 4),
    "a GAN's end": ("train_gan", SampleGrid, "act", 2, [], 8),
    "a classifier's step": ("train_classifier", classifier_module, "attribute_loss", 4, [], 2),
    "a validation": ("train_classifier", ClassifierModule, "validation_step", 4, ["schedule=cosine"], 1),
}


@pytest.mark.parametrize(("name", "owner", "function", "at", "words", "steps"), MOMENTS.values(), ids=MOMENTS)
def test_ctrl_c_loses_nothing_and_the_command_that_it_prints_goes_on(
    name, owner, function, at, words, steps, run, command, monkeypatch
):
    whole = run(name, SILENT, *words)
    with monkeypatch.context() as patch:
        ctrl_c(patch, owner, function, at)
        ended = run(name, SILENT, *words)
    path = ended.folder / "checkpoints" / "last.ckpt"
    assert ended.code == 130
    error, remedy = ended.err.splitlines()[-2:]
    assert error.startswith("error: interrupted")
    assert json.loads((ended.folder / "status.json").read_text())["state"] == "failed"
    assert torch.load(path, weights_only=True)["global_step"] == steps  # of optimizers, of which a GAN has two
    _, script, *typed = shlex.split(remedy.removeprefix("to go on: "))
    assert (script, typed[-1]) == (f"{name}.py", f"ckpt_path={path}")
    resumed = command(name, *typed)
    assert resumed.code == 0, resumed.err
    expected = load_file(whole.folder / WEIGHTS[name])
    for key, tensor in load_file(ended.folder / WEIGHTS[name]).items():
        assert torch.equal(tensor, expected[key]), key
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (ended.folder, whole.folder))
    assert one == other
    if name == "train_classifier":  # validations too are neither lost nor seen twice
        assert events_of(ended.folder, "val/loss") == events_of(whole.folder, "val/loss")


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    last = LastCheckpoint(tmp_path / "last.ckpt", 5)
    last.stepping = True
    last.hear(signal.SIGINT, None)
    last.hear(signal.SIGTERM, None)  # as a sweep sends to its jobs beside
    with pytest.raises(KeyboardInterrupt):
        last.hear(signal.SIGINT, None)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_before_the_first_step_a_signal_ends_at_once(number, raised, tmp_path):
    with pytest.raises(raised):
        LastCheckpoint(tmp_path / "last.ckpt", 5).hear(number, None)


def test_handlers_are_as_before(run):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run("train_classifier", SILENT, "max_images=16").code == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("name", "figure"), [("train_gan", "fid_judge/procedural64-uint8/val/16-ema"), ("train_classifier", "val/loss")]
)
def test_training_stops_early_and_keeps_the_best(name, figure, run):
    words = ["callbacks=[early_stopping,best_checkpoint]", "callbacks.early_stopping.patience=2"]
    ended = run(name, SILENT, *words, "callbacks.early_stopping.min_delta=1000")  # which nothing improves by
    assert ended.code == 0, ended.err
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert metrics["num_images"] == 48  # after the first of three validations nothing improved
    logged = events_of(ended.folder, figure)
    assert len(logged) == 3
    best = torch.load(ended.folder / "checkpoints" / "best.ckpt", weights_only=True)
    at = min(logged, key=lambda step: logged[step])
    assert at == (best["progress"]["num_images"] if name == "train_gan" else best["global_step"] - 1)


def test_the_best_may_be_the_highest(run):
    words = ["callbacks=best_checkpoint", "callbacks.best_checkpoint.monitor=val/balanced_accuracy"]
    ended = run("train_classifier", SILENT, *words)
    logged = events_of(ended.folder, "val/balanced_accuracy")
    best = torch.load(ended.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert logged[best["global_step"] - 1] == max(logged.values())


def test_rates_are_monitored(run):
    ended = run("train_gan", SILENT, "callbacks=lr_monitor", "judge=none", "max_images=16")
    assert ended.code == 0, ended.err
    assert events_of(ended.folder, "train/lr_g") == {0: pytest.approx(2e-4)}
    tags = EventAccumulator(str(ended.folder)).Reload().Tags()["scalars"]
    assert {"lr-Adam", "lr-Adam-1"} <= set(tags)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        (
            "train_classifier",
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/los"],
            "callbacks.early_stopping.monitor=val/los must be one of this training's figures, val/loss, val/accuracy, ",
        ),
        (
            "train_gan",
            ["callbacks=best_checkpoint", "callbacks.best_checkpoint.monitor=fid"],
            "callbacks.best_checkpoint.monitor=fid must be one of this training's figures, fid_judge, kid_judge, ",
        ),
        ("train_gan", ["callbacks=early_stopping", "judge=none"], "callbacks.early_stopping.monitor: this training"),
        ("train_gan", ["+callbacks.early.patience=3"], "callbacks.early={'patience': 3} has no _target_, its class; "),
        ("train_gan", ["+callbacks.mine={_target_:torch.nn.Identity}"], "callbacks.mine._target_=torch.nn.Identity"),
        (
            "train_classifier",
            ["callbacks=lr_monitor", "logger=none"],
            "trainer: Cannot use `LearningRateMonitor` callback with",
        ),
        (
            "train_classifier",
            ["training.scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"],
            "training.scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau goes by epochs, and a training is one",
        ),
    ],
)
def test_callbacks_and_schedules_that_cannot_be_are_refused(name, words, said, run):
    ended = run(name, SILENT, *words)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith(f"error: {said}")


def test_bars_show_a_gans_scores_and_the_end_its_figures_and_its_files(run):
    ended = run("train_gan", "max_images=16")
    assert "Looking at val images: " in ended.err
    assert "Looking at samples: " in ended.err
    assert "  fid_judge/procedural64-uint8/val/16-ema: " in ended.out
    assert ended.out.splitlines()[-1] == f"  {ended.folder / 'generator.safetensors'}"


def test_bars_are_richs_on_demand(run):
    pytest.importorskip("rich")
    ended = run("train_classifier", "max_images=16", "callbacks=rich_progress")
    assert ended.code == 0, ended.err
    assert "Epoch 0/0" in ended.out and "Epoch 0:" not in ended.out  # as tqdm's have it


def test_a_gan_that_nothing_scores_says_so(run):
    ended = run("train_gan", SILENT, "judge=none", "max_images=16")
    assert "  no scores: neither a judge nor scores.inception to compare samples by" in ended.out.splitlines()
