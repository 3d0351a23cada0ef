"""Sweeps over machines: Hydra's other launchers leave what is completed, and their tasks steer whole batches."""

import pickle

import torch
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from swept import QUICK, history_of, jobs_of, script

from zsteer.steering.history import History, NonFiniteScore

GRID = ("target=Smiling,Smilling,Bangs", "penalty_weight=0,1")
IN_PLACE = (
    *("hydra/launcher=slurm_batches", "hydra/launcher@hydra.launcher.nodes=basic"),
    f"hydra.launcher.nodes._target_={__name__}.InPlace",
)
ON_RAY = ("hydra/launcher=ray_batches", "+hydra.launcher.nodes.ray.init.num_cpus=2")


class InPlace(BasicLauncher):
    """Hydra's own launcher, which no config may name: one machine, this one."""


def left_by(folder):
    """What a sweep left of each job, and when."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/*")}


def test_a_batch_is_steered_as_in_the_sweeps_own_process(command):
    whole = command("steer", *GRID, *QUICK, sweep=True)
    ended = command("steer", *GRID, *QUICK, *IN_PLACE, "hydra.launcher.jobs_each=4", sweep=True)
    assert ended.code == whole.code == 1
    assert "did you mean 'Smiling'" in ended.err.splitlines()[-1]
    jobs, expected = jobs_of(ended.folder), jobs_of(whole.folder)
    assert [row["state"] for row in jobs] == ["completed"] * 2 + ["failed"] * 2 + ["completed"] * 2
    assert len(list((ended.folder / ".batches").iterdir())) == 2
    for one, other in zip(jobs, expected, strict=True):
        assert one["job"] == other["job"]
        if one["state"] == "completed":
            noise, given = (
                history_of(row)["noise"] for row in (ended.folder / one["job"], whole.folder / other["job"])
            )
            torch.testing.assert_close(noise, given, rtol=1e-3, atol=1e-4)
    before = left_by(ended.folder)
    again = command(
        "steer", *GRID, *QUICK, *IN_PLACE, "hydra.launcher.jobs_each=2", f"resume={ended.folder}", sweep=True
    )
    assert again.code == 1
    failed = {path for path in before if "Smilling" in path.parent.name}
    assert {path for path, time in left_by(ended.folder).items() if before.get(path) != time} <= failed


def test_hydras_own_launcher_leaves_what_is_completed(command):
    words = ("hydra/launcher=basic", "target=Smiling,Bangs", *QUICK)
    folder = command("steer", *words, sweep=True).folder
    (folder / jobs_of(folder)[1]["job"] / "status.json").unlink()
    before = left_by(folder)
    assert command("steer", *words, f"resume={folder}", sweep=True).code == 0
    changed = {path.parent for path, time in left_by(folder).items() if before.get(path) != time}
    assert changed == {folder / jobs_of(folder)[1]["job"]}


def test_jobs_each_must_be_a_number_of_jobs(command):
    ended = command("steer", *GRID, *QUICK, *IN_PLACE, "hydra.launcher.jobs_each=0", sweep=True)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: hydra.launcher.jobs_each=0 must be")


def test_a_sweep_runs_on_a_ray_cluster_of_two_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    folder = tmp_path / "sweep"
    ended = script("steer", "-m", *ON_RAY, *GRID, *QUICK, "hydra.launcher.jobs_each=3", f"hydra.sweep.dir={folder}")
    assert ended.returncode == 1
    assert [row["state"] for row in jobs_of(folder)] == ["completed"] * 2 + ["failed"] * 2 + ["completed"] * 2
    assert any(line.startswith("error: 2_") and "did you mean 'Smiling'" in line for line in ended.stderr.splitlines())


def test_what_went_wrong_reaches_other_processes():
    error = NonFiniteScore("scores are not finite", History(noise=[torch.ones(2, 3)]))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert torch.equal(again.history.noise[0], torch.ones(2, 3))
