"""The sweeper of `hydra/sweeper=optuna`: a search by hydra-optuna-sweeper that goes on where it was ended.

Optuna's study holds the trials, in the sweep's folder unless `hydra.sweeper.storage` says where; the folder has their
jobs. The same words in the same folder, or `resume=` of it, go on with both; the same words in another folder go on
with a study that is stored elsewhere, by the name of these words unless `hydra.sweeper.study_name` gives one.
"""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobStatus
from hydra.types import HydraContext
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from omegaconf import DictConfig, ListConfig, OmegaConf
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError

from zsteer.files import atomic_write, read_json, slug
from zsteer.runs import read_config
from zsteer.settings import whole_number
from zsteer.status import read_status, refuse_completed_sweep
from zsteer.sweeps.jobs import words_of
from zsteer.sweeps.launching import objective_of

CONFIG = "multirun.yaml"  # Hydra's name for the config of a sweep
LONGEST_NAME = 500  # of the 512 letters that Optuna's tables have for a study's


class Search:
    """A search, from the settings of the config section `hydra.sweeper`.

    Raises:
        ValueError: a setting is wrong, or the folder holds another sweep.
    """

    def __init__(self, settings: Mapping[str, Any], context: HydraContext, task: Any, config: DictConfig):
        for key in ("n_trials", "n_jobs"):
            whole_number(settings[key], f"hydra.sweeper.{key}", 1)
        self.config, self.call, self.folder = config, task.call, Path(config.hydra.sweep.dir)
        self.sweeper = OptunaSweeperImpl(**settings)
        self.sweeper.setup(hydra_context=context, task_function=task, config=config)
        self.sweeper.storage = self.sweeper.storage or f"sqlite:///{self.folder / 'study.db'}"
        self.sweeper.study_name = self.sweeper.study_name or slug(config.hydra.overrides.task, LONGEST_NAME)
        self._check_objective()
        self._check_subdir()
        self._enter_folder()

    def _check_objective(self) -> None:
        wanted, directions = self.config.get("objective"), self.sweeper._get_directions()
        figures = list(wanted) if isinstance(wanted, ListConfig) else [wanted]
        if wanted is None or len(figures) != len(directions):
            raise ValueError(
                f"objective={wanted} must name a figure for each of hydra.sweeper.direction={', '.join(directions)}"
            )

    def _check_subdir(self) -> None:
        """By the numbers that jobs' folders begin with a search goes on."""
        sweep: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        if not sweep["subdir"].startswith("${hydra.job.num}_"):
            raise ValueError(f"hydra.sweep.subdir={sweep['subdir']} must begin with ${{hydra.job.num}}_ in a search")

    def _enter_folder(self) -> None:
        """Make the folder this search's, unless it is already."""
        started = self.folder / CONFIG
        known = started.is_file() and _identity(read_config(started)) == _identity(self.config)
        if self.call.resumed and not known:
            raise ValueError(
                f"resume={self.folder} holds another search; resume with the words that it was started with"
            )
        if not known:
            refuse_completed_sweep(self.folder)
        self.call.resumed, self.call.sweep = True, self.folder  # what is completed stays as it is
        with atomic_write(started) as temporary:
            OmegaConf.save(self.config, temporary)

    def run(self, words: list[str]) -> None:
        """Search until `n_trials` trials of the study are completed.

        Raises:
            ValueError: the storage or the sampler cannot be used.
        """
        study = self._study()
        if study.trials:
            self._go_on(study)
        numbers = [path.name.partition("_")[0] for path in self.folder.iterdir()]
        self.sweeper.job_idx = max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1
        self.sweeper.sweep(words)

    def _study(self) -> optuna.Study:
        name, storage = self.sweeper.study_name, self.sweeper.storage
        directions = self.sweeper._get_directions()
        create = partial(
            optuna.create_study,
            study_name=name,
            storage=storage,
            directions=directions,
            sampler=self.sweeper.sampler,
            load_if_exists=True,
        )
        try:
            try:
                study = create()
            except DBAPIError as error:
                if "already exists" not in str(error):
                    raise
                time.sleep(2)  # another worker, which began with this one, is making the tables
                study = create()
        except Exception as error:  # of SQLAlchemy's and each database's own kinds
            raise ValueError(f"hydra.sweeper.storage={storage} cannot be used: {error}") from error
        kept = [direction.name.lower() for direction in study.directions]
        if kept != [direction.lower() for direction in directions]:
            raise ValueError(
                f"hydra.sweeper.direction={', '.join(directions)} is not that of hydra.sweeper.study_name={name}, "
                f"{', '.join(kept)}; name another study"
            )
        return study

    def _go_on(self, study: optuna.Study) -> None:
        """End the trials that were under way, and leave to be searched what is missing."""
        if not hasattr(self.sweeper.sampler, "reseed_rng"):
            raise ValueError("hydra/sweeper/sampler=grid cannot go on; hydra/sweeper=quick runs a grid, and resumes")
        self.sweeper.sampler.reseed_rng()  # which would draw again what it has drawn
        jobs: dict[frozenset[str], tuple[Path, list[str]]] = {}
        for job in self.folder.iterdir():
            if (given := words_of(job)) is not None:
                jobs[frozenset(given)] = (job, given)
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            words = frozenset(f"{key}={value}" for key, value in {**trial.params, **trial.user_attrs}.items())
            if words in jobs:  # not asked by another process, and not ended before its job began
                self._finish(study, trial.number, *jobs[words])
        self.sweeper.n_trials -= len(study.get_trials(states=(TrialState.COMPLETE,)))

    def _finish(self, study: optuna.Study, trial: int, job: Path, words: list[str]) -> None:
        """Tell the study of a job that was completed before the study was told, or that is run again."""
        if read_status(job).get("state") == "completed":
            study.tell(trial, objective_of(read_json(job / "metrics.json"), self.config))
            return
        assert self.sweeper.launcher is not None
        (ended,) = self.sweeper.launcher.launch([words], initial_job_idx=int(job.name.partition("_")[0]))
        if ended.status == JobStatus.COMPLETED:
            study.tell(trial, ended.return_value)
        else:
            study.tell(trial, state=TrialState.FAIL)


def _identity(config: Any) -> list[Any]:
    """What tells one search from another, as written: interpolations name the same folder in other ways."""
    hydra: Any = OmegaConf.to_container(config)
    sweeper = hydra["hydra"]["sweeper"]
    return [hydra["hydra"]["overrides"]["task"], sweeper["storage"], sweeper["study_name"]]
