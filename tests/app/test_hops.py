"""From script to loss: as many calls of ours as the README and CONTRIBUTING.md say, counted in a real run."""

import traceback

import pytest

from zsteer.app.composition import PACKAGE
from zsteer.gan import losses
from zsteer.steering import methods


class Stopped(Exception):
    """Ends a run where its calls are counted."""


def calls_of_ours(error: BaseException) -> list[str]:
    """The functions of the package on the way to an error, outermost first, without what a test's checks add."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(str(PACKAGE))]
    return [f"{frame.filename.removeprefix(str(PACKAGE)).lstrip('/')}:{frame.name}" for frame in ours]


@pytest.fixture
def stopped_calls(command, monkeypatch):
    """Run a command that is stopped in a function; what had been called by then."""

    def call(module, function, *words):
        def stop(*_):
            raise Stopped

        monkeypatch.setattr(module, function, stop)
        with pytest.raises(Stopped) as caught:
            command(*words)
        return calls_of_ours(caught.value)

    return call


def test_from_steer_to_the_gradient(stopped_calls):
    assert stopped_calls(methods, "gradient_of", "steer", "method=ascent", "num_images=1", "judge=none") == [
        "app/main.py:__call__",
        "app/main.py:__call__",
        "app/commands.py:steer",
        "steering/session.py:steer",
        "steering/module.py:training_step",
        "steering/ascent.py:ascend",
        "steering/methods.py:move",
    ]  # and gradient_of, the eighth


def test_from_train_gan_to_the_loss(stopped_calls, tmp_path):
    sizes = ("data.num_train=16", "data.num_val=8", "data.num_test=8", "data.batch_size=8", "max_images=8")
    words = ("judge=none", "generator.network.hidden_dim=2", "discriminator.network.hidden_dim=2", "trainer=cpu")
    words += ("trainer.log_every_n_steps=1",)
    assert stopped_calls(losses, "bce_discriminator", "train_gan", *sizes, *words, f"data.root={tmp_path}") == [
        "app/main.py:__call__",
        "app/main.py:__call__",
        "app/commands.py:train_gan",
        "gan/training.py:train",
        "gan/module.py:training_step",
        "gan/module.py:_differentiate",
        "gan/module.py:discriminator_loss",
    ]  # and bce_discriminator, the eighth
