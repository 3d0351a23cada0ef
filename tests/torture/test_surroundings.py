"""Clocks that jump and a locale with its own letters and numbers change nothing.

The clock is libfaketime's, which Debian has; the locale is one that must have been generated.
"""

import json
import locale
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FACES = ("data.num_train=256", "data.num_val=16", "data.num_test=16", "data.batch_size=16", "judge=none")
NARROW = ("generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4")
TRAINING = (*FACES, *NARROW, "trainer=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=4")
STEER = ("method=ascent", "num_steps=100", "num_images=2", "trainer=cpu")
YEAR = 365 * 24 * 3600


class Clock:
    """A clock that is off by some seconds, for the commands that are given its environment."""

    def __init__(self, library: Path, folder: Path):
        self.file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a computer's own clocks never jump
        }
        self.turn(0)

    def turn(self, seconds: int) -> None:
        """Have the clock off by so many seconds from now on."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self.file)


@pytest.fixture
def clock(tmp_path, torture) -> Clock:
    if not torture:
        pytest.skip("for make torture")
    found = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), *Path("/usr/lib").glob("faketime/libfaketimeMT*")]
    if not found:
        pytest.skip("needs Debian's libfaketime")
    return Clock(found[0], tmp_path)


def begin(script: str, *words: object, **environment: str) -> subprocess.Popen:
    """Start a command as a process of its own."""
    command = [sys.executable, f"scripts/{script}.py", *map(str, words)]
    env = {**os.environ, **environment}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> tuple[str, str]:
    """What a command said until it ended, which it did well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def wait_for(path: Path) -> None:
    """Wait until there is such a file."""
    started = time.monotonic()
    while not path.is_file():
        assert time.monotonic() - started < 120, f"no {path}"
        time.sleep(0.05)


def steps_of(folder: Path, tag: str) -> set[int]:
    """The steps whose scalar TensorBoard finds in a folder."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {scalar.step for scalar in events.Scalars(tag)}


@pytest.mark.parametrize("jump", [-50 * YEAR, -3600, 50 * YEAR])
def test_a_clock_that_jumps_while_faces_are_steered_changes_nothing(clock, tmp_path, jump):
    ended(begin("steer", *STEER, f"hydra.run.dir={tmp_path / 'whole'}"))
    process = begin("steer", *STEER, f"hydra.run.dir={tmp_path / 'run'}", **clock.environment)
    started = time.monotonic()
    wait_for(tmp_path / "run" / "status.json")
    clock.turn(jump)
    ended(process)
    for name, tensor in load_file(tmp_path / "whole" / "history.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "run" / "history.safetensors")[name])
    seconds = json.loads((tmp_path / "run" / "status.json").read_text())["seconds"]
    assert 0 < seconds < time.monotonic() - started
    assert len(steps_of(tmp_path / "run", "steer/target_logit")) == 1 + 100  # the start, and each step


def test_a_training_that_goes_on_years_before_it_began_loses_nothing(clock, tmp_path):
    data = f"data.root={tmp_path / 'data'}"
    ended(begin("train_gan", *TRAINING, data, "max_images=512", f"hydra.run.dir={tmp_path / 'whole'}"))
    words = (*TRAINING, data, "max_images=512", f"hydra.run.dir={tmp_path / 'run'}")
    clock.turn(10 * YEAR)
    process = begin("train_gan", *words, "checkpoint_minutes=1e-6", **clock.environment)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    wait_for(checkpoint)
    process.kill()
    process.communicate()
    clock.turn(-50 * YEAR)
    ended(begin("train_gan", *words, f"ckpt_path={checkpoint}", **clock.environment))
    whole = load_file(tmp_path / "whole" / "generator.safetensors")
    for name, tensor in load_file(tmp_path / "run" / "generator.safetensors").items():
        assert torch.equal(tensor, whole[name])
    assert steps_of(tmp_path / "run", "train/loss_d") == steps_of(tmp_path / "whole", "train/loss_d")


def test_a_locale_changes_no_figure_and_no_word(tmp_path, torture):
    if not torture:
        pytest.skip("for make torture")
    try:
        before = locale.setlocale(locale.LC_ALL)
        locale.setlocale(locale.LC_ALL, "tr_TR.UTF-8")
        locale.setlocale(locale.LC_ALL, before)
    except locale.Error:
        pytest.skip("needs the locale tr_TR.UTF-8")
    said = []
    for name in ("C.UTF-8", "tr_TR.UTF-8"):
        shutil.rmtree(tmp_path / "sweep", ignore_errors=True)
        words = ("-m", "num_steps=2", "num_images=1", "trainer=cpu", "target=Smiling,Big_Lips")
        steered = ended(begin("steer", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}", LC_ALL=name))
        summary = ended(begin("summarize", tmp_path / "sweep", LC_ALL=name))
        said.append((steered[0], summary[0]))
    assert said[0] == said[1]
