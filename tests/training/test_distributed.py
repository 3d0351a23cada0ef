"""Two processes train as one does: real ones, by gloo on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
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


@pytest.mark.parametrize("name", [name for name in RUNS if name != "batch_norm"])
def test_two_ranks_end_as_one(name, folders):
    one, two = (load_file(folders[ranks] / name / "rank0.safetensors") for ranks in (1, 2))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-6, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", [name for name in RUNS if name != "batch_norm"])
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
