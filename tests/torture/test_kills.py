"""Whatever stage is killed, what it goes on with ends as if nothing had happened.

`make test` kills a few stages once; `make torture` kills all of them, several times.
"""

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file
from torture.victims import make_celeba, moments, run

import zsteer
from zsteer.status import read_status

FACES = ("data.num_train=256", "data.num_val=16", "data.num_test=16", "data.batch_size=16", "max_images=192")
TRAINING = ("trainer=cpu", "trainer.precision=32-true", "checkpoint_minutes=1e-6", "trainer.log_every_n_steps=4")
GAN = (*FACES, *TRAINING, "generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4", "judge=none")
STEER = ("num_steps=3", "num_images=2", "trainer=cpu")


@dataclass(frozen=True)
class Stage:
    """A command with `{folder}` for its folder, how it goes on there, and whether the results must be the same bits.

    Args:
        begun: whether the folder has to hold a sweep that is not summarized.
    """

    command: str
    words: tuple[str, ...]
    goes_on: Callable[[Path], tuple[str, ...]] = lambda folder: ()
    exact: bool = True
    in_ci: bool = False
    begun: bool = False


def from_checkpoint(folder: Path) -> tuple[str, ...]:
    return (f"ckpt_path={folder}",) if (folder / "checkpoints" / "last.ckpt").is_file() else ()


def by_resume(folder: Path) -> tuple[str, ...]:
    return (f"resume={folder}",) if (folder / "multirun.yaml").is_file() else ()


def training(command: str, *words: str, in_ci: bool = False) -> Stage:
    return Stage(command, (*words, "hydra.run.dir={folder}"), goes_on=from_checkpoint, in_ci=in_ci)


STAGES = {
    "rendering": Stage("prepare_data", ("data=procedural", *FACES[:3], "data.root={folder}")),
    "conversion": Stage("prepare_data", ("data=celeba", "data.root={shared}", "data.store={folder}/store")),
    "bce": training("train_gan", *GAN, "data.root={shared}"),
    "hinge": training("train_gan", *GAN, "gan_loss=hinge", "data.root={shared}"),
    "wgan_gp": training("train_gan", *GAN, "gan_loss=wgan_gp", "data.root={shared}", in_ci=True),
    "r3gan": training("train_gan", *GAN, "gan_loss=r3gan", "data.root={shared}"),
    "classifier": training(
        "train_classifier", *FACES, *TRAINING, "classifier.network.hidden_dim=4", "data.root={shared}"
    ),
    "vectorized sweep": Stage(
        "steer",
        ("-m", *STEER, "seed=0,1,2,3", "penalty_weight=0,0.1", "hydra.launcher.max_rows=4", "hydra.sweep.dir={folder}"),
        goes_on=by_resume,
        exact=False,  # the jobs that are left are steered in other batches
        in_ci=True,
    ),
    "sweep over processes": Stage(
        "steer",
        (
            *("-m", *STEER, "seed=0,1", "hydra/launcher=processes", "hydra.launcher.num_parallel=2"),
            "hydra.sweep.dir={folder}",
        ),
        goes_on=by_resume,
    ),
    "summary": Stage("summarize", ("sweep={folder}",), begun=True),
    "comparison": Stage(
        "compare",
        (
            *(
                "+contenders.a=['method=ascent','num_steps=3']",
                "+contenders.b=['method=penalty','num_steps=3']",
                "targets=[Smiling,Bangs]",
            ),
            *("num_images=6", "~experiment", *FACES[:3], "data.root={shared}", "hydra.run.dir={folder}"),
        ),
    ),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory, torture):
    """Where drawn faces are, and for all stages a CelebA of 600 images and the jobs of a sweep, once."""
    root = tmp_path_factory.mktemp("data")
    zsteer.prepare_data("data=procedural", *FACES[:3], f"data.root={root}")
    if torture:
        make_celeba(root, count=600)
        for seed in range(3):
            zsteer.steer(*STEER, seed=seed, folder=root / "sweep" / f"{seed}_job")
    return root


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_is_killed_goes_on_to_the_same_end(name, shared, tmp_path, torture):
    stage = STAGES[name]
    if not (torture or stage.in_ci):
        pytest.skip("for make torture")

    def attempt(folder: Path, number: int, kill_after: float | None = None):
        if stage.begun and not folder.exists():
            shutil.copytree(shared / "sweep", folder)
        words = [word.replace("{folder}", str(folder)).replace("{shared}", str(shared)) for word in stage.words]
        named = any(word.startswith("hydra.") and "dir=" in word for word in words)
        where = () if named else (f"hydra.run.dir={tmp_path / f'{folder.name}_{number}'}",)
        log = tmp_path / f"{folder.name}_{number}.log"
        while True:
            ended = run(stage.command, [*words, *where, *stage.goes_on(folder)], log, kill_after)
            if "is in use by another run" not in ended.said:  # by a job that has yet to see that its sweep is gone
                return ended
            time.sleep(1)

    whole = attempt(tmp_path / "whole", 0)
    assert whole.code == 0, whole.said[-2000:]
    for round_ in range(5 if torture else 1):
        folder = tmp_path / f"killed{round_}"
        for number, moment in enumerate(moments(3, whole.seconds, seed=round_)):
            killed = attempt(folder, number, kill_after=moment)
            assert killed.code in (0, -9), killed.said[-2000:]
            if killed.code == 0 or read_status(folder).get("state") == "completed":  # as it was about to leave
                break
        else:
            ended = attempt(folder, 3)
            assert ended.code == 0, ended.said[-2000:]
        assert_same(tmp_path / "whole", folder, stage.exact)


def test_workers_on_one_study_lose_no_trial_when_one_is_killed(tmp_path, torture):
    if not torture:
        pytest.skip("for make torture")
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    space = ("hydra/sweeper=optuna", "penalty_weight=interval(0.0,1.0)", "objective=gain_judge")
    study = ("hydra.sweeper.n_trials=6", f"hydra.sweeper.storage={storage}", "hydra.sweeper.study_name=of_all")
    words = ["-m", *STEER, *space, *study, "hydra.sweeper.direction=maximize"]

    def worker(name: str, *more: str, kill_after: float | None = None):
        folder = tmp_path / name
        where = () if more else (f"hydra.sweep.dir={folder}",)
        return run("steer", [*words, *where, *more], tmp_path / f"{name}{len(more)}.log", kill_after)

    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(worker, "other")
        killed = worker("killed", kill_after=12)
        assert killed.code in (0, -9), killed.said[-2000:]
        assert other.result().code == 0, other.result().said[-2000:]
    goes_on = worker("killed", *by_resume(tmp_path / "killed"))
    assert goes_on.code == 0, goes_on.said[-2000:]
    trials = optuna.load_study(study_name="of_all", storage=storage).get_trials()
    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(completed) >= 6
    jobs = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/metrics.json")]
    told = sorted(trial.values[0] for trial in completed)
    assert told == pytest.approx(sorted(job["gain_judge"] for job in jobs))


def assert_same(whole: Path, other: Path, exact: bool) -> None:
    """The results in two folders are the same; temporary files that a kill has left are none of them."""
    paths = {folder: results_of(folder) for folder in (whole, other)}
    assert paths[whole] == paths[other] and paths[whole]
    for path in paths[whole]:
        one, two = whole / path, other / path
        if path.suffix == ".safetensors":
            expected = load_file(one)
            for key, tensor in load_file(two).items():
                tolerance = 0.0 if exact else 1e-3
                torch.testing.assert_close(tensor, expected[key], rtol=tolerance, atol=tolerance, equal_nan=True)
        elif path.name == "status.json":
            assert json.loads(two.read_text())["state"] == "completed"
        elif path.suffix == ".npy":
            assert one.read_bytes() == two.read_bytes(), path
        elif path.suffix == ".csv":
            given, found = (pd.read_csv(table).drop(columns="seconds", errors="ignore") for table in (one, two))
            pd.testing.assert_frame_equal(found, given, check_exact=exact, atol=1e-3)
        elif exact:
            assert figures_of(one) == figures_of(two), path


def figures_of(path: Path) -> object:
    """What a JSON file says, without the config, which names the checkpoint that a run went on from."""
    content = json.loads(path.read_text())
    return content.get("figures", content)


def results_of(folder: Path) -> set[Path]:
    """What a run leaves of results, by its place: JSON, tensors, arrays, tables."""
    kinds = (".json", ".safetensors", ".npy", ".csv")
    places = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix in kinds]
    return {place for place in places if not any(part.startswith(".") for part in place.parts)}
