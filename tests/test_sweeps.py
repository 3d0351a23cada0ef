"""Sweeps: every job runs whatever becomes of the others, and the folder ends in one table and one picture."""

import csv
import json

from zsteer.sweeps import summarize

GRID = ("target=Smiling,Eyeglasses", "penalty_weight=0,0.1", "num_steps=1", "num_images=2")


def table(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_has_a_row_and_a_readable_folder_for_each_job(command):
    ended = command("steer", *GRID, sweep=True)
    assert ended.code == 0, ended.err
    rows = table(ended.folder)
    assert [(row["target"], float(row["penalty_weight"])) for row in rows] == [
        *(("Smiling", 0.0), ("Smiling", 0.1), ("Eyeglasses", 0.0), ("Eyeglasses", 0.1))
    ]
    for number, row in enumerate(rows):
        assert row["state"] == "completed"
        assert row["job"].startswith(f"{number}_target-{row['target']}")
        assert not set(row["job"]) & set("=,[]{} ")
        metrics = json.loads((ended.folder / row["job"] / "metrics.json").read_text())
        assert float(row["gain_judge"]) == metrics["gain_judge"]
    assert (ended.folder / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_a_failing_job_takes_no_other_with_it_and_every_failure_is_listed(command):
    ended = command("steer", "num_steps=1,0", "num_images=1,0", "judge=none", sweep=True)
    assert ended.code != 0
    assert [row["state"] for row in table(ended.folder)] == ["completed", "failed", "failed", "failed"]
    reasons = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(reasons) == 3
    assert "Traceback" not in ended.err
    assert "num_images=0" in table(ended.folder)[1]["error"]


def test_summarize_makes_the_same_again_from_the_folders(command):
    folder = command("steer", *GRID, sweep=True).folder
    before = (folder / "sweep.csv").read_bytes()
    (folder / "sweep.csv").unlink()
    (folder / "frontier.png").unlink()
    assert command("summarize", f"sweep={folder}").code == 0
    assert (folder / "sweep.csv").read_bytes() == before
    assert (folder / "frontier.png").is_file()


def test_jobs_are_in_the_order_of_their_numbers(tmp_path):
    for number in (0, 2, 10, 1):
        job = tmp_path / f"{number}_seed-{number}"
        job.mkdir()
        (job / "status.json").write_text('{"state": "completed", "seconds": 1}')
    assert summarize(tmp_path) == {"completed": 4}
    assert [row["job"].partition("_")[0] for row in table(tmp_path)] == ["0", "1", "2", "10"]


def test_a_folder_without_jobs_is_refused(command, tmp_path):
    (tmp_path / "empty").mkdir()
    ended = command("summarize", f"sweep={tmp_path / 'empty'}")
    assert ended.code != 0
    assert "holds no job" in ended.err.splitlines()[-1]


def test_hydras_own_launcher_is_refused_several_devices(command):
    words = ("seed=0,1", "trainer=ddp", "trainer.devices=2", "hydra/launcher=basic")
    ended = command("train_gan", *words, sweep=True)
    assert ended.code != 0
    assert "trainer.devices=2 must be 1 in a sweep by hydra/launcher=basic" in ended.err
