"""A search by Optuna goes on where it was ended: no trial is lost or asked twice, nothing completed is run again."""

import json

import optuna
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf
from sqlalchemy.exc import OperationalError
from swept import QUICK, jobs_of

from zsteer.steering.session import Session

SEARCH = (
    *("hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0"),
    *("hydra.sweeper.n_jobs=2", "hydra.sweeper.direction=maximize", "objective=gain_classifier"),
    *("penalty_weight=interval(0.0,1.0)", *QUICK),
)


@pytest.fixture
def search(command):
    """A search of so many trials; the rest as for `command`."""
    return lambda trials, *words: command("steer", *SEARCH, f"hydra.sweeper.n_trials={trials}", *words, sweep=True)


def interrupt_at(monkeypatch, owner, name, call):
    """Have Ctrl-C come at the so-manieth call of a method."""
    method, calls = getattr(owner, name), []

    def interrupted(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)


def trials_of(folder):
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{folder / 'study.db'}")
    return optuna.load_study(study.study_name, f"sqlite:///{folder / 'study.db'}").trials


def test_a_search_goes_on_where_it_was_ended(search, monkeypatch):
    with monkeypatch.context() as patch:  # while the third and the fourth trial are steered
        interrupt_at(patch, Session, "steer", 2)
        ended = search(6)
    assert ended.code == 130
    folder = ended.folder
    assert [trial.state.name for trial in trials_of(folder)] == ["COMPLETE"] * 2 + ["RUNNING"] * 2

    with monkeypatch.context() as patch:  # when the fifth is told: the study knows neither that nor the sixth
        interrupt_at(patch, optuna.Study, "tell", 3)
        ended = search(6, f"resume={folder}")
    assert ended.code == 130
    completed = {path: path.read_bytes() for path in folder.glob("*/status.json")}
    assert [json.loads(text)["state"] for text in completed.values()] == ["completed"] * 6
    assert [trial.state.name for trial in trials_of(folder)] == ["COMPLETE"] * 4 + ["RUNNING"] * 2

    ended = search(7, f"hydra.sweep.dir={folder}")
    assert ended.code == 0, ended.err
    assert {path: path.read_bytes() for path in completed} == completed
    rows = jobs_of(folder)
    assert [row["state"] for row in rows] == ["completed"] * 7
    assert [int(row["job"].partition("_")[0]) for row in rows] == list(range(7))
    told = {str(trial.params["penalty_weight"]): float(trial.values[0]) for trial in trials_of(folder)}
    assert len(told) == 7  # drawn anew, not by the seed again
    assert told == {row["penalty_weight"]: pytest.approx(float(row["gain_classifier"])) for row in rows}
    best = OmegaConf.load(folder / "optimization_results.yaml")
    assert best.best_value == pytest.approx(max(value for value in told.values() if value is not None))

    ended = search(7, "seed=1", f"resume={folder}")
    assert ended.code == 1
    assert "resume with the words that it was started with" in ended.err.splitlines()[-1]


def test_a_study_that_is_stored_elsewhere_goes_on_in_another_folder(search, tmp_path):
    storage = f"hydra.sweeper.storage=sqlite:///{tmp_path / 'x.db'}"
    first, second, other = search(2, storage), search(3, storage), search(1, storage, "target=Bangs")
    assert [ended.code for ended in (first, second, other)] == [0, 0, 0]
    assert [len(jobs_of(ended.folder)) for ended in (first, second, other)] == [2, 1, 1]


def test_workers_that_begin_at_once_both_have_the_study(search, monkeypatch):
    create, calls = optuna.create_study, []

    def raced(**settings):  # the other one has made this table since it was looked for
        calls.append(settings)
        if len(calls) == 1:
            raise OperationalError("CREATE TABLE studies", {}, Exception("table studies already exists"))
        return create(**settings)

    monkeypatch.setattr(optuna, "create_study", raced)
    ended = search(1)
    assert ended.code == 0, ended.err
    assert len(trials_of(ended.folder)) == 1


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "hydra.sweeper.storage=sqlite:////nowhere/x.db",
            "hydra.sweeper.storage=sqlite:////nowhere/x.db cannot be used",
        ),
        ("hydra.sweeper.storage=nothing", "hydra.sweeper.storage=nothing cannot be used"),
        ("hydra.sweeper.n_jobs=0", "hydra.sweeper.n_jobs=0 must be a whole number, 1 or more"),
        ("objective=null", "objective=None must name a figure for each of hydra.sweeper.direction=maximize"),
        ("hydra.sweeper.direction=[maximize,minimize]", "must name a figure for each of"),
        ("hydra.sweeper.direction=more", "direction"),
        (
            "hydra.sweep.subdir=t${hydra.job.num}",
            "must begin with ${hydra.job.num}_ in a search",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_its_first_job(search, word, said):
    ended = search(1, word)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert said in ended.err.splitlines()[-1]
    assert not list(ended.folder.glob("*/status.json"))


@pytest.mark.parametrize(
    ("word", "name", "extra"),
    [
        ("hydra/sweeper=optuna", "optuna.yaml", "sweeps"),
        ("hydra/launcher=slurm", "submitit_slurm.yaml", "sweeps"),
        ("hydra/launcher=ray_batches", "ray.yaml", "ray"),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(command, monkeypatch, word, name, extra):
    group = word.partition("=")[0].removeprefix("hydra/")
    Plugins.instance()  # which makes the plugins' configs known
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], name)
    ended = command("steer", word, "seed=0,1", sweep=True)
    assert ended.code == 1
    assert f"pip install 'zsteer[{extra}]'" in ended.err.splitlines()[-1]
