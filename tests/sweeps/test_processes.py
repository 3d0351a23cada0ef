"""Sweeps over processes: jobs of their own, ranks that share rows, searches and clusters."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from places import GOLDEN_NETWORKS, ROOT
from swept import QUICK, history_of, jobs_of, script

from zsteer.app.composition import CONFIGS
from zsteer.locks import in_use
from zsteer.sweeps.hydra_internals import word_of
from zsteer.sweeps.jobs import words_of


def test_two_ranks_steer_as_one(command, tmp_path):
    words = [*GOLDEN_NETWORKS, "experiment=tutorial", "target=Smiling,Bangs", "num_images=3", "num_steps=3"]
    words += ["trainer.precision=64-true", "hydra.launcher.max_rows=3"]
    one = command("steer", *words, "trainer=cpu", sweep=True)
    assert one.code == 0, one.err
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", f"hydra.sweep.dir={tmp_path / 'two'}")
    ended = script("steer", "-m", *words, *two)
    assert ended.returncode == 0, ended.stderr
    jobs = [sorted(folder.glob("*/history.safetensors")) for folder in (one.folder, tmp_path / "two")]
    assert [len(paths) for paths in jobs] == [2, 2]
    for one, two in zip(*jobs, strict=True):
        for name, tensor in history_of(one.parent).items():
            torch.testing.assert_close(history_of(two.parent)[name], tensor, rtol=0, atol=1e-9)


def test_training_jobs_are_processes_of_their_own(tmp_path):
    folder = tmp_path / "try (2), it's=[a]" / "sweep"  # of a name that Hydra's grammar has to have quoted
    data = (f"data.root={tmp_path}", "data.num_train=64", "data.num_val=16", "data.num_test=16", "data.batch_size=16")
    words = ("-m", "max_images=320,0", "classifier.network.hidden_dim=4", "trainer=cpu", *data)
    ended = script("train_classifier", *words, "hydra.launcher.num_parallel=2", word_of("hydra.sweep.dir", folder))
    assert ended.returncode == 1
    rows = jobs_of(folder)
    assert [row["state"] for row in rows] == ["completed", "failed"]
    assert "max_images=0" in ended.stderr.splitlines()[-1]
    assert (folder / rows[0]["job"] / "classifier.safetensors").is_file()
    given = words_of(folder / rows[0]["job"])
    assert "Testing" in (folder / rows[0]["job"] / "output.log").read_text()
    again = script("train_classifier", *words, f"resume={folder}")
    assert "max_images=0" in again.stderr.splitlines()[-1]
    assert float(rows[0]["seconds"]) == float(jobs_of(folder)[0]["seconds"])  # it was not run again
    job = folder / rows[0]["job"]
    for _ in range(2):  # it goes on with its checkpoint, as often as it is interrupted
        (job / "status.json").write_text(json.dumps({"state": "failed", "error": "interrupted"}))
        again = script("train_classifier", *words, f"resume={folder}")
        assert "max_images=0" in again.stderr.splitlines()[-1]
        assert jobs_of(folder)[0]["state"] == "completed"
    assert "ckpt_path" not in jobs_of(folder)[0] and words_of(job) == given


def test_a_process_that_is_killed_is_a_failed_job(tmp_path):
    program = tmp_path / "train_gan.py"
    program.write_text(
        "import os\n"
        "from dataclasses import replace\n"
        "from types import SimpleNamespace\n"
        "from zsteer.app.commands import train_gan\n"
        "def train(cfg, folder):\n"
        "    if cfg.seed:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return SimpleNamespace(metrics={}, report=str)\n"
        "replace(train_gan, perform=train)()\n"
    )
    folder = tmp_path / "sweep"
    words = [str(program), "-m", "seed=1,0", f"data.root={tmp_path}", f"hydra.sweep.dir={folder}"]
    words += ["hydra.launcher.num_parallel=2"]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 1
    assert [row["state"] for row in jobs_of(folder)] == ["failed", "completed"]
    assert "was ended by signal 9" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_end_with_their_sweep_having_saved_and_said_so(tmp_path, number, torture):
    if number == signal.SIGKILL and not torture:
        pytest.skip("for make torture; that a single job ends so is tested by tests/app/test_process.py")
    folder = tmp_path / "sweep"
    sizes = ("data.num_train=64", "data.num_val=16", "data.num_test=16", "data.batch_size=16", "max_images=10_000_000")
    words = ("seed=1,2", *sizes, "checkpoint_minutes=0.001", "classifier.network.hidden_dim=4", "trainer=cpu")
    command = [sys.executable, "scripts/train_classifier.py", "-m", *words, f"data.root={tmp_path}"]
    process = subprocess.Popen([*command, f"hydra.sweep.dir={folder}"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(folder.glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    (job,) = folder.glob("0_*")  # the second waits for it
    process.send_signal(number)
    _, err = process.communicate(timeout=300)  # which the job has open, too
    remedy = f"terminated; ckpt_path={job}/checkpoints/last.ckpt goes on"
    while json.loads((job / "status.json").read_text())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert json.loads((job / "status.json").read_text())["error"] == remedy
    assert remedy in (job / "output.log").read_text()
    assert torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert [path.parent for path in folder.glob("*/status.json")] == [job]
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        *_, error, going_on = err.splitlines()
        assert error == f"error: {job.name}: {remedy}"
        assert going_on.startswith("to go on: ") and going_on.endswith(f" resume={folder}")
        assert [row["error"] for row in jobs_of(folder)] == [remedy]
        assert not list(folder.rglob(".lock"))


def test_nothing_starts_beside_a_job_that_still_lives(command):
    words = ("steer", "target=Smiling,Smilling", *QUICK)
    folder = command(*words, sweep=True).folder
    (job,) = folder.glob("1_*")
    before = {path: path.read_bytes() for path in folder.glob("*/status.json")}
    with in_use(job, "hydra.run.dir"):
        ended = command(*words, f"resume={folder}", sweep=True)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith(f"error: hydra.sweep.dir={job} is in use by another run; wait")
    assert {path: path.read_bytes() for path in folder.glob("*/status.json")} == before


@pytest.mark.parametrize("word", ["hydra.sweep.dir", "resume"])
def test_a_sweep_in_use_is_refused_before_anything_is_written(command, tmp_path, word):
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "multirun.yaml").write_text("{}")
    with in_use(folder, "hydra.sweep.dir"):
        words = ("target=Smiling,Male", *QUICK, "hydra.sweep.dir=elsewhere", f"{word}={folder}")
        ended = command("steer", *words, sweep=True)
        assert ended.code == 1
        assert ended.err.splitlines()[-1].startswith(f"error: hydra.sweep.dir={folder} is in use by another run")
        assert {path.name for path in folder.iterdir()} == {".lock", "multirun.yaml"}
    assert (folder / "multirun.yaml").read_text() == "{}"


def test_optuna_gets_the_objective_of_each_trial(command):
    words = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", *QUICK[:3])
    space = ("objective=gain_judge", "hydra.sweeper.direction=maximize", "penalty_weight=interval(0.0,1.0)")
    ended = command("steer", *words, *space, sweep=True)
    assert ended.code == 0, ended.err
    best = OmegaConf.load(ended.folder / "optimization_results.yaml")
    gains = [float(row["gain_judge"]) for row in jobs_of(ended.folder)]
    assert len(gains) == 4
    assert best.best_value == pytest.approx(max(gains))


def test_a_sweep_runs_on_submitits_local_executor(tmp_path):
    folder = tmp_path / "sweep"
    words = ("-m", "hydra/launcher=submitit_local", "target=Smiling,Smilling", *QUICK)
    ended = script("steer", *words, f"hydra.sweep.dir={folder}")
    assert ended.returncode == 1
    assert [row["state"] for row in jobs_of(folder)] == ["completed", "failed"]
    assert "did you mean 'Smiling'" in ended.stderr.splitlines()[-1]


def test_the_slurm_launcher_composes():
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        cfg = loader.load_configuration("steer", ["hydra/launcher=slurm"], run_mode=RunMode.MULTIRUN)
    assert cfg.hydra.launcher._target_.endswith("SlurmLauncher")
    assert (cfg.hydra.launcher.gpus_per_node, cfg.hydra.launcher.array_parallelism) == (1, 32)
