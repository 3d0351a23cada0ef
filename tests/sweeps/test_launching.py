"""Sweeps: jobs that are steered together end as each alone; nothing is lost, nothing mixed, whatever fails."""

import errno
import json
import subprocess
import sys
import time
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from places import GOLDEN_NETWORKS, ROOT
from swept import QUICK, history_of, jobs_of

from zsteer.app.composition import compose
from zsteer.files import BUNDLE
from zsteer.steering.history import History
from zsteer.steering.session import Session, group_of

JOB = st.fixed_dictionaries(
    {
        "target": st.sampled_from(["Smiling", "Male", "Bangs"]),
        "edit": st.sampled_from(["add", "remove"]),
        "penalty_weight": st.sampled_from([0, 0.1, 1]),
        "step_size": st.sampled_from([0.05, 0.3]),
        "last_step_size": st.sampled_from([0.05, 0.3]),
        "seed": st.integers(0, 2),
        "num_images": st.integers(1, 3),
    }
)


@pytest.mark.parametrize(
    ("method", "precision", "tolerance"),
    [
        *((method, "64-true", 1e-9) for method in ("ascent", "tutorial", "projected", "direction")),
        ("projected", "32-true", 1e-2),
    ],
)
@settings(max_examples=4)
@given(jobs=st.lists(JOB, min_size=2, max_size=5), cut=st.integers(1, 4))
def test_a_job_moves_as_it_would_alone_in_any_company(method, precision, tolerance, jobs, cut):
    common = (*GOLDEN_NETWORKS, f"method={method}", "num_steps=3", f"trainer.precision={precision}", "trainer=cpu")
    base = compose("steer", common)
    cfgs = [cast(DictConfig, OmegaConf.merge(base, job)) for job in jobs]
    assert len({group_of(cfg) for cfg in cfgs}) == 1
    session = Session(cfgs[0])
    ready = [session.job(cfg) for cfg in cfgs]
    together = [
        steered
        for part in (ready[:cut], ready[cut:])
        if part
        for steered in map(session.measure, part, session.steer(part, progress_bar=False))
    ]
    for job, steered in zip(ready, together, strict=True):
        (history,) = session.steer([job], progress_bar=False)
        alone = session.measure(job, history)
        torch.testing.assert_close(steered.history.noise, alone.history.noise, rtol=0, atol=tolerance)
        assert sorted(steered.history.images) == sorted(alone.history.images)


def test_only_networks_method_and_steps_divide_a_sweep():
    base = group_of(compose("steer"))
    for words in (["target=Male", "edit=remove", "seed=3"], ["num_images=3", "penalty_weight=0"], ["step_size=1"]):
        assert group_of(compose("steer", words)) == base
    for words in (["num_steps=3"], ["method=tutorial"], ["target=age"], ["judge=none"], ["trainer.precision=64-true"]):
        assert group_of(compose("steer", words)) != base
    # Networks without a checkpoint are drawn by the seed.
    fresh = [group_of(compose("steer", ["generator.checkpoint=null", f"seed={seed}"])) for seed in (0, 1)]
    assert fresh[0] != fresh[1]


def test_every_job_gets_what_a_run_of_its_own_gets(command):
    grid = command("steer", "target=Smiling,Bangs", "seed=0,1", *QUICK[:2], "hydra.launcher.max_rows=3", sweep=True)
    assert grid.code == 0, grid.err
    for row in jobs_of(grid.folder):
        folder = grid.folder / row["job"]
        alone = command("steer", f"target={row['target']}", f"seed={row['seed']}", *QUICK[:2])
        names = {path.name for path in alone.folder.iterdir() if not path.name.startswith("events")} - {"steer.log"}
        assert {path.name for path in folder.iterdir() if not path.name.startswith("events")} == names
        assert len(list(folder.glob("events.out.tfevents.*"))) == 1
        for name in ("config", "overrides"):
            text = (folder / ".hydra" / f"{name}.yaml").read_text()
            assert text == (alone.folder / ".hydra" / f"{name}.yaml").read_text()
        torch.testing.assert_close(history_of(folder)["noise"], history_of(alone.folder)["noise"], rtol=0, atol=1e-2)
        found, expected = (json.loads((place / "metrics.json").read_text()) for place in (folder, alone.folder))
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name] == (pytest.approx(value, rel=1e-2, abs=1e-2) if isinstance(value, float) else value)


def test_failures_of_every_kind_leave_the_other_jobs_alone(command):
    steps = "step_size=0.1,1e39"  # the second leaves all numbers behind
    ended = command("steer", "target=Smiling,Smilling", steps, "penalty_weight=0", *QUICK, sweep=True)
    assert ended.code == 1
    rows = jobs_of(ended.folder)
    assert [row["state"] for row in rows] == ["completed", "failed", "failed", "failed"]
    assert "not finite" in rows[1]["error"]
    assert "did you mean 'Smiling'" in rows[2]["error"]
    assert len([line for line in ended.err.splitlines() if line.startswith("error: ")]) == 3
    assert len(history_of(ended.folder / rows[1]["job"])["noise"]) >= 1  # the steps before are kept
    assert "Traceback" in json.loads((ended.folder / rows[1]["job"] / "status.json").read_text())["traceback"]


def test_a_group_whose_network_does_not_load_leaves_the_others_alone(command, tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    ended = command(
        *(
            "steer",
            f"classifier.checkpoint={tmp_path / 'broken.pth'},{BUNDLE / 'classifier.safetensors'}",
            "target=Male,Young",
            *QUICK,
        ),
        sweep=True,
    )
    assert [row["state"] for row in jobs_of(ended.folder)] == ["failed", "failed", "completed", "completed"]


def test_a_full_disk_fails_the_job_that_it_hits_and_leaves_nothing_half_written(command, monkeypatch):
    save = History.save

    def full(history, folder, *rest):
        if "1_target" in str(folder):
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        save(history, folder, *rest)

    monkeypatch.setattr(History, "save", full)
    ended = command("steer", "target=Smiling,Male,Young", *QUICK, sweep=True)
    assert ended.code == 1
    assert [row["state"] for row in jobs_of(ended.folder)] == ["completed", "failed", "completed"]
    assert "No space left on device" in ended.err
    assert not [path for path in ended.folder.rglob(".*") if path.is_file()]
    monkeypatch.setattr(History, "save", save)
    resumed = command("steer", "target=Smiling,Male,Young", *QUICK, f"resume={ended.folder}", sweep=True)
    assert resumed.code == 0, resumed.err
    assert {row["state"] for row in jobs_of(ended.folder)} == {"completed"}


def test_a_killed_sweep_goes_on_with_what_is_missing(command, tmp_path):
    folder = tmp_path / "sweep"
    words = ["target=Smiling,Male,Young,Bangs,Bald,Blurry", "num_steps=12", "num_images=4", "judge=none"]
    words += ["method=ascent", "hydra.launcher.max_rows=4", "trainer=cpu"]
    program = [sys.executable, "scripts/steer.py", "-m", *words, f"hydra.sweep.dir={folder}"]
    with subprocess.Popen(program, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not list(folder.glob("*/metrics.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    before = {path: path.read_bytes() for path in folder.glob("*/metrics.json")}
    assert 1 <= len(before) < 6
    written = {path: path.stat().st_mtime_ns for path in before}
    ended = command("steer", *words, f"resume={folder}", sweep=True)
    assert ended.code == 0, ended.err
    rows = jobs_of(folder)
    assert [row["state"] for row in rows] == ["completed"] * 6
    assert [row["target"] for row in rows] == ["Smiling", "Male", "Young", "Bangs", "Bald", "Blurry"]
    done = [path for path, state in written.items() if path.stat().st_mtime_ns == state]
    assert len(done) >= len(before) - 1  # the one that the kill interrupted may have had its metrics already


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["target=Male,Young", "seed=4"], "is no job of this command"),
        (["target=Male"], "is no job of this command"),
    ],
)
def test_a_sweep_is_resumed_with_its_own_words_only(command, words, said):
    folder = command("steer", "target=Male,Young", *QUICK, sweep=True).folder
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    ended = command("steer", *words, *QUICK, f"resume={folder}", sweep=True)
    assert ended.code == 1
    assert said in ended.err.splitlines()[-1]
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before


@pytest.mark.parametrize("launcher", ["vectorized", "processes"])
def test_two_jobs_of_one_folder_are_refused(command, launcher):
    words = [*QUICK, f"hydra/launcher={launcher}", "penalty_weight=0,0.5"]
    ended = command("steer", *words, "hydra.sweep.subdir=job", sweep=True)
    assert ended.code == 1
    said = "hydra.sweep.subdir=job gives two jobs the folder job; let it begin with ${hydra.job.num}_"
    assert said in ended.err.splitlines()[-1]


def test_what_cannot_be_resumed_is_named(command, tmp_path):
    ended = command("steer", f"resume={tmp_path}", *QUICK, sweep=True)
    assert "has no multirun.yaml" in ended.err.splitlines()[-1]
    folder = command("steer", "target=Male,Young", *QUICK, sweep=True).folder
    ended = command("steer", f"resume={folder}", *QUICK)
    assert ended.code == 1
    assert "add -m" in ended.err.splitlines()[-1]


@pytest.mark.parametrize("objective", ["gain", "gain_judge"])
def test_an_objective_that_no_job_has_is_refused_before_the_first_step(command, objective):
    ended = command("steer", *QUICK, f"objective={objective}")  # without a judge there is no gain of its
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith(f"error: objective={objective} must be one of gain_classifier, noise")
    assert not list(ended.folder.glob("*"))


def test_an_objective_that_is_not_known_in_the_end_is_named(command):
    ended = command("steer", "num_images=1", "num_steps=1", "objective=preservation_rate")  # of groups of five
    assert ended.code == 1
    assert "objective=preservation_rate must be one of the job's figures" in ended.err.splitlines()[-1]
