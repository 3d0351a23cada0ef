"""Sweeps: every job runs whatever becomes of the others, and the folder ends in one table and one picture."""

import csv
import json
import re
import shlex

import pandas as pd
import pytest
from interrupts import interrupted
from PIL import Image

from zsteer.steering.session import Session
from zsteer.sweeps.jobs import read_jobs
from zsteer.sweeps.summary import lines_of, summarize

GRID = ("target=Smiling,Eyeglasses", "penalty_weight=0,0.1", "num_steps=1", "num_images=2", "method=ascent")


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


def test_jobs_that_were_refused_have_a_row_and_no_point(command):
    words = ("edit=add,remove", "method=ascent", "penalty_weight=-1,0.1", "num_steps=1", "num_images=1", "judge=none")
    ended = command("steer", *words, sweep=True)
    assert ended.code == 1
    assert [row["state"] for row in table(ended.folder)] == ["failed", "completed"] * 2
    assert len([line for line in ended.err.splitlines() if line.startswith("error: ")]) == 2
    assert (ended.folder / "frontier.png").is_file()
    job = ended.folder / table(ended.folder)[1]["job"]
    (job / "metrics.json").unlink()
    assert summarize(ended.folder).metrics == {"failed": 2, "completed": 2}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["penalty_wieght=0,1"], "penalty_wieght"),
        (["seed=0,1", "hydra.launcher.max_rows=0"], "hydra.launcher.max_rows=0 must be a whole number, 1 or more"),
    ],
)
def test_a_sweep_that_gets_to_no_job_says_why(command, words, said):
    ended = command("steer", *words, sweep=True)
    assert ended.code == 1
    assert said in ended.err.splitlines()[-1]


def test_a_sweep_into_a_folder_that_cannot_be_written_names_it(command, tmp_path):
    (tmp_path / "file").write_text("")
    ended = command("steer", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'file' / 'sweep'}", sweep=True)
    assert ended.code == 1
    assert f"hydra.sweep.dir: cannot write {tmp_path / 'file'}" in ended.err.splitlines()[-1]


def test_an_interrupted_batch_has_failed(command, monkeypatch):
    monkeypatch.setattr(Session, "steer", interrupted)
    ended = command("steer", *GRID, sweep=True)
    assert ended.code == 130
    assert [(row["state"], row["error"]) for row in table(ended.folder)] == [("failed", "interrupted")] * 4
    *errors, remedy = ended.err.splitlines()
    assert "interrupted" in errors[-1]
    python, *typed = shlex.split(remedy.removeprefix("to go on: "))
    assert typed == ["steer.py", "-m", *GRID, f"hydra.sweep.dir={ended.folder}", f"resume={ended.folder}"]
    monkeypatch.undo()
    assert command("steer", *typed[2:], sweep=True).code == 0
    assert [row["state"] for row in table(ended.folder)] == ["completed"] * 4


def test_the_bar_shows_the_steps_of_a_batch(command):
    ended = command("steer", *GRID, sweep=True)
    assert re.findall(r"8 rows, step \d of 1", ended.err)[:2] == ["8 rows, step 0 of 1", "8 rows, step 1 of 1"]


def test_a_line_of_the_pictures_is_of_jobs_that_differ_in_the_penalty_alone(command):
    words = ("seed=0,1", "penalty_weight=0,0.1", "method=ascent,penalty", "num_steps=1", "num_images=2")
    folder = command("steer", *words, sweep=True).folder
    lines = lines_of(folder, read_jobs(folder))
    assert sorted(lines) == ["add Smiling, ascent", "add Smiling, penalty"]
    assert all(sorted(row["penalty_weight"] for row in rows) == [0, 0, 0.1, 0.1] for rows in lines.values())
    for history in folder.rglob("history.safetensors"):
        history.unlink()
    assert command("summarize", f"sweep={folder}").code == 0


def test_jobs_that_differ_in_their_seed_are_a_row_of_means(command):
    folder = command("steer", "seed=0,1,2", *GRID[1:], sweep=True).folder
    jobs, seeds = pd.read_csv(folder / "sweep.csv"), pd.read_csv(folder / "seeds.csv")
    assert len(jobs) == 6 and list(seeds["penalty_weight"]) == [0, 0.1] and list(seeds["num_seeds"]) == [3, 3]
    for weight, alike in jobs.groupby("penalty_weight"):
        row = seeds[seeds["penalty_weight"] == weight].iloc[0]
        for figure in ("gain_judge", "attribute_dependency"):
            assert row[figure] == pytest.approx(alike[figure].mean())
            low, high = alike[figure].min() - 1e-9, alike[figure].max() + 1e-9
            assert low <= row[f"{figure}_low"] < row[figure] < row[f"{figure}_high"] <= high
    assert "seed" not in seeds and "gain_judge_low_low" not in seeds


def test_one_image_has_no_interval(command):
    folder = command("steer", "num_steps=1,2", "num_images=1", "method=ascent", sweep=True).folder
    names = pd.read_csv(folder / "sweep.csv").columns
    assert not [name for name in names if str(name).endswith(("_low", "_high"))]


def test_without_two_seeds_there_are_no_means(command):
    folder = command("steer", "num_steps=1,2", "num_images=1", "method=ascent", sweep=True).folder
    assert not (folder / "seeds.csv").exists()


def test_a_training_sweep_has_curves_of_its_figures(tmp_path):
    for number, (rate, norm) in enumerate([(1e-3, "batch"), (1e-2, "batch"), (1e-3, "group"), (1e-2, "group")]):
        job = tmp_path / f"{number}_job"
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"[lr={rate}, norm={norm}, max_images=8]")
        (job / "status.json").write_text('{"state": "completed", "seconds": 1}')
        figures = {"num_images": 8, "fid_judge/a": 3.0 + number, "kid_judge/a": None if number else 0.5}
        (job / "metrics.json").write_text(json.dumps(figures))
    summarize(tmp_path)
    assert (tmp_path / "curves.png").is_file() and not (tmp_path / "frontier.png").exists()
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height  # two keys across, two figures down


def test_a_training_sweep_over_seeds_alone_has_means_and_no_picture_of_steering(tmp_path):
    for seed in (0, 1):
        job = tmp_path / f"{seed}_job"
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"[seed={seed}, max_images=8]")
        (job / "status.json").write_text('{"state": "completed", "seconds": 1}')
        (job / "metrics.json").write_text(json.dumps({"num_images": 8, "fid_judge/a": 3.0 + seed}))
    summarize(tmp_path)
    assert pd.read_csv(tmp_path / "seeds.csv")["fid_judge/a"].tolist() == [3.5]
    assert not list(tmp_path.glob("*.png")) and not (tmp_path / "sweep").exists()


def test_swept_words_come_first_in_the_names_of_jobs(command):
    fixed = ("judge=none", "num_images=1", "until=0.9999999999999", "last_step_size=0.123456789012345")
    folder = command("steer", *fixed, "num_steps=1,2", sweep=True).folder
    assert [path.parent.name.startswith(f"{n}_num_steps-{n + 1}_judge") for n, path in statuses(folder)] == [True] * 2


def statuses(folder):
    return enumerate(sorted(folder.glob("*/status.json")))


def test_a_search_is_one_line(tmp_path):
    for number, weight in enumerate((0.11, 0.37)):
        job = tmp_path / f"{number}_job" / ".hydra"
        job.mkdir(parents=True)
        (job / "overrides.yaml").write_text(f"[penalty_weight={weight}, step_size={weight + 1}]")
        (job.parent / "status.json").write_text('{"state": "completed", "seconds": 1}')
        settings = {"edit": "add", "target": "Smiling", "method": "ascent", "penalty_weight": weight}
        (job.parent / "metrics.json").write_text(json.dumps(settings))
    assert list(lines_of(tmp_path, read_jobs(tmp_path))) == ["add Smiling, ascent"]


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
    assert summarize(tmp_path).metrics == {"completed": 4}
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


def test_damaged_files_of_a_job_fail_that_job_alone(command):
    swept = command("steer", *GRID, sweep=True)
    assert swept.code == 0, swept.err
    jobs = sorted(path.parent for path in swept.folder.glob("*/status.json"))
    (jobs[0] / "status.json").write_bytes(b"")  # as after a power cut
    (jobs[1] / "metrics.json").write_text('{"target": "Smil')
    (jobs[2] / "history.safetensors").write_bytes(b"")
    summary = summarize(swept.folder)
    rows = summary.table.set_index("job")
    assert list(rows["state"].iloc[:3]) == ["failed", "failed", "failed"]
    assert "status.json is damaged; run the job again" in rows["error"].iloc[0]
    assert "metrics.json is damaged; run the job again" in rows["error"].iloc[1]
    assert "history.safetensors is damaged; run the job again" in rows["error"].iloc[2]
    again = command("steer", *GRID, f"resume={swept.folder}", sweep=True)
    assert jobs[0].name in {path.name for path in jobs} and again.code == 0, again.err
    assert [row["state"] for row in read_jobs(swept.folder)] == ["completed"] * 4


def test_a_finished_sweeps_folder_takes_no_other_sweep(command):
    swept = command("steer", *GRID, sweep=True)
    before = (swept.folder / "multirun.yaml").read_bytes()
    other = command("steer", *GRID, "seed=5", f"++hydra.sweep.dir={swept.folder}", sweep=True)
    assert other.code == 1
    assert "already holds a completed run" in other.err.splitlines()[-1]
    assert (swept.folder / "multirun.yaml").read_bytes() == before


def test_points_of_a_job_that_was_killed_are_not_doubled(command):
    ended = command("steer", "num_steps=2", "num_images=1", "judge=none")
    (events,) = ended.folder.glob("*tfevents*")
    events.rename(ended.folder / "events.out.tfevents.1.zsteer")  # of an earlier second
    (ended.folder / "status.json").write_text('{"state": "failed"}')
    again = command("steer", "num_steps=2", "num_images=1", "judge=none", f"hydra.run.dir={ended.folder}")
    assert again.code == 0, again.err
    (events,) = ended.folder.glob("*tfevents*")
    assert events.name != "events.out.tfevents.1.zsteer"
