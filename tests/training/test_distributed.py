"""Two processes train as one does, and end together: real ones, by gloo on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file
from two_ranks import RUNS

HELPER = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process made, and what two did."""
    root, made = tmp_path_factory.mktemp("data"), {}
    for ranks in (1, 2):
        made[ranks] = tmp_path_factory.mktemp(f"ranks{ranks}")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if ranks == 2 else []
        words = [sys.executable, *launcher, HELPER, made[ranks], root]
        threads = {"OMP_NUM_THREADS": str(2 // ranks)}
        subprocess.run(words, check=True, timeout=300, env={**os.environ, **threads}, capture_output=True)
    return made


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_end_with_the_same_weights(name, folders):
    one, other = (load_file(folders[2] / name / f"rank{rank}.safetensors") for rank in (0, 1))
    differing = {key for key, tensor in one.items() if not torch.equal(tensor, other[key])}
    # Each rank's own statistics, of the live generator only: what is exported and scored is the first rank's.
    assert all(key.startswith("generator.") and ".running_" in key for key in differing)
    assert bool(differing) == (name == "batch_norm")


# Batch norm sees each rank's images, and penalties on a generator take the largest element of each rank's.
AS_ONE = [name for name in RUNS if name not in ("batch_norm", "penalties")]


@pytest.mark.parametrize("name", AS_ONE)
def test_two_ranks_end_as_one(name, folders):
    one, two = (load_file(folders[ranks] / name / "rank0.safetensors") for ranks in (1, 2))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-6, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", AS_ONE)
def test_two_ranks_figures_are_those_of_one(name, folders):
    one, two = (json.loads((folders[ranks] / name / "metrics.json").read_text()) for ranks in (1, 2))
    attributes = [figures.pop("attributes", {}) for figures in (one, two)]
    [figures.pop("scales", None) for figures in (one, two)]
    assert len(one) > 4
    assert two == pytest.approx(one, rel=1e-3, abs=1e-4)
    for figure, values in attributes[0].items():
        known = {attribute: value for attribute, value in values.items() if value is not None}
        other = {attribute: attributes[1][figure][attribute] for attribute in known}
        assert other == pytest.approx(known, rel=1e-3, abs=1e-4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("faces")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the second process in /proc")
@pytest.mark.parametrize(
    ("ranks", "number"),
    [((1,), signal.SIGTERM), ((0, 1), signal.SIGTERM), ((1,), signal.SIGKILL)],
)
def test_a_signal_to_any_of_two_processes_ends_both(ranks, number, root, tmp_path, torture):
    if len(ranks) == 2 and not torture:
        pytest.skip("for make torture")
    words = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=4", "judge=none"]
    words += ["data.num_train=64", "data.num_val=16", "data.num_test=16", f"data.root={root}", "max_images=10_000_000"]
    words += ["generator.network.hidden_dim=2", "discriminator.network.hidden_dim=2", "checkpoint_minutes=0.001"]
    command = [sys.executable, "scripts/train_gan.py", *words, f"hydra.run.dir={tmp_path}"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    saved, deadline = tmp_path / "checkpoints" / "last.ckpt", time.monotonic() + 300
    while not saved.exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    (second,) = map(int, Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
    for rank in ranks:
        os.kill((first.pid, second)[rank], number)
    _, err = first.communicate(timeout=200)  # at whose end both have closed it
    assert first.returncode == 143 if number == signal.SIGTERM else first.returncode != 0
    if number == signal.SIGTERM:
        status = json.loads((tmp_path / "status.json").read_text())
        assert status["error"] == f"terminated; ckpt_path={saved} goes on"
        assert f"error: {status['error']}" in err.splitlines()
        assert torch.load(saved, weights_only=True)["progress"]["num_iterations"] > 0
