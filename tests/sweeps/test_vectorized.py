"""A batch of jobs that fails is steered in halves, so that no job pays for another."""

import json
import re

import pytest
import torch
from places import GOLDEN_NETWORKS
from swept import QUICK, history_of, jobs_of

from zsteer.steering.judge import Judge
from zsteer.steering.module import LatentSteering

GRID = ("seed=0,1,2,3,4", "trainer=cpu", "trainer.precision=64-true", *GOLDEN_NETWORKS, *QUICK)


def failing(monkeypatch, fails, error):
    """Have the networks raise an error for some noise."""
    forward = LatentSteering.forward

    def patched(module, noise):
        if fails(noise):
            raise error
        return forward(module, noise)

    monkeypatch.setattr(LatentSteering, "forward", patched)


def test_an_error_for_one_image_fails_its_job_alone(command, monkeypatch):
    whole = command("steer", *GRID, sweep=True)
    culprit = torch.randn(2, 64, generator=torch.Generator().manual_seed(3))[1].double()
    failing(monkeypatch, lambda noise: (noise == culprit).all(dim=1).any(), RuntimeError("not this face"))
    ended = command("steer", *GRID, sweep=True)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].endswith("not this face")
    rows = jobs_of(ended.folder)
    assert [row["state"] for row in rows] == ["completed"] * 3 + ["failed", "completed"]
    assert "5/5" in ended.err  # of the progress bar
    for row in rows:
        assert float(row["seconds"]) > 0
        if row["state"] == "completed":
            alone = history_of(ended.folder / row["job"])["noise"]
            torch.testing.assert_close(alone, history_of(whole.folder / row["job"])["noise"], rtol=0, atol=1e-9)


def test_an_error_of_the_judge_fails_the_job_whose_images_it_saw(command, monkeypatch):
    logits = Judge.logits
    calls = []

    def patched(judge, images):
        calls.append(len(images))
        if len(calls) == 3:  # the second job's first
            raise RuntimeError("not this face")
        return logits(judge, images)

    monkeypatch.setattr(Judge, "logits", patched)
    ended = command("steer", "seed=0,1,2", *QUICK[:3], sweep=True)
    assert [row["state"] for row in jobs_of(ended.folder)] == ["completed", "failed", "completed"]


@pytest.mark.parametrize("words", [GRID, (*GRID[1:], "num_images=5")])
def test_what_does_not_fit_into_memory_is_steered_in_parts(command, monkeypatch, words):
    sweep = words is GRID
    whole = command("steer", *words, sweep=sweep)
    failing(monkeypatch, lambda noise: len(noise) > 3, torch.OutOfMemoryError("CUDA out of memory"))
    parts = command("steer", *words, sweep=sweep)
    assert parts.code == 0, parts.err
    for path in whole.folder.rglob("history.safetensors"):
        own = parts.folder / path.parent.relative_to(whole.folder)
        torch.testing.assert_close(history_of(own)["noise"], history_of(path.parent)["noise"], rtol=0, atol=1e-9)


def test_one_image_that_does_not_fit_is_a_line(command, monkeypatch):
    failing(monkeypatch, lambda noise: True, RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    ended = command("steer", *GRID[1:])
    assert ended.code == 1
    assert "error: one image alone does not fit into memory" in ended.err.splitlines()[-1]
    status = json.loads((ended.folder / "status.json").read_text())
    assert "use smaller networks" in status["error"]


@pytest.mark.parametrize(
    ("words", "states"),
    [
        (["penalty_weight=1e-300,1e8,1e39"], ["completed", "completed", "failed"]),
        (["method=direction", "penalty_weight=0.1,1e20"], ["completed", "failed"]),
        (["method=best_of", "step_size=1e-300,1e39"], ["completed", "failed"]),
        (["last_step_size=1e-300,1e39"], ["completed", "failed"]),
        (["until=1e-320,0.9999999999999999"], ["completed", "completed"]),
        (["num_images=2,1000001"], ["completed", "failed"]),
        (["method.optimizer.lr=1,1e39,-1,x"], ["completed", "failed", "failed", "failed"]),
    ],
)
def test_a_number_however_great_works_or_is_a_line_of_its_job(command, words, states):
    ended = command("steer", "trainer=cpu", *QUICK, *words, sweep=True)
    rows = jobs_of(ended.folder)
    assert [row["state"] for row in rows] == states
    for row in rows:
        key = "method.optimizer" if "method.optimizer.lr" in row else "lower|num_images"
        assert row["state"] == "completed" or re.search(key, row["error"])
    assert len([line for line in ended.err.splitlines() if line.startswith("error: ")]) == states.count("failed")
