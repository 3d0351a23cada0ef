"""How the jobs of a sweep are run: steered together as one batch, or as processes of their own.

The launchers that Hydra knows (`hydra_plugins.zsteer_launchers`) hand their jobs to the functions here. One job's
failure takes no other with it, and a sweep that is resumed leaves the jobs that are completed.
"""

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from textwrap import indent
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from tqdm import tqdm

from zsteer import checks
from zsteer.files import whole
from zsteer.run import Job, interrupt_of, is_main_process, objective_of, say, say_failed


@dataclass
class Launched:
    """One job of a sweep: its overrides, its config (with Hydra's own section), its folder, and what became of it."""

    overrides: list[str]
    cfg: DictConfig
    hydra_cfg: DictConfig
    folder: Path
    result: Any = None
    error: BaseException | None = None

    @property
    def completed(self) -> bool:
        """Whether its folder says so."""
        return _status(self.folder).get("state") == "completed"


@dataclass
class Sweep:
    """The jobs that Hydra's sweeper asks for, and what it needs to compose and run them."""

    context: HydraContext
    task: Any
    config: DictConfig
    job_overrides: Sequence[Sequence[str]]
    first: int
    jobs: list[Launched] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert isinstance(self.task, Job)
        self.session = self.task.session
        self.folder = Path(self.config.hydra.sweep.dir)
        if is_main_process():
            self.folder.mkdir(parents=True, exist_ok=True)
        self.session.sweep, self.session.started = self.folder, True
        self.jobs = list(self._composed())
        self._check_same()

    def _composed(self) -> Iterator[Launched]:
        composer = Composer(self.context.config_loader, self.config)
        title = f"Composing {len(self.job_overrides)} jobs"
        for number, overrides in enumerate(tqdm(self.job_overrides, desc=title, leave=False, delay=2), self.first):
            config = composer.compose(overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            folder = self.folder / str(config.hydra.sweep.subdir)
            with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
                config.hydra.runtime.output_dir = str(folder.absolute())
            cfg = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            OmegaConf.set_struct(cfg, True)
            yield Launched(list(config.hydra.overrides.task), cfg, config, folder)

    def _check_same(self) -> None:
        """
        Raises:
            ValueError: the folder that is to be resumed holds jobs of other words.
        """
        known = {job.folder.name: job.overrides for job in self.jobs}
        all_known = self.config.hydra.sweeper.get("max_batch_size") is None
        for status in self.folder.glob("*/status.json") if self.session.resumed else ():
            saved = status.parent / ".hydra" / "overrides.yaml"
            words = OmegaConf.to_container(OmegaConf.load(saved)) if saved.is_file() else None
            mine = known.get(status.parent.name)
            if (mine is None and all_known) or (mine is not None and words not in (None, mine)):
                raise ValueError(
                    f"resume={self.folder} holds {status.parent.name}, which is no job of this command; resume with "
                    "the words that the sweep was started with"
                )

    def begin(self, job: Launched) -> None:
        """Make a job's folder with Hydra's three files of its config."""
        if not is_main_process():
            return
        for name, text in {
            "config": OmegaConf.to_yaml(job.cfg),
            "hydra": "hydra:\n" + indent(OmegaConf.to_yaml(job.hydra_cfg.hydra), "  "),
            "overrides": OmegaConf.to_yaml(OmegaConf.create(job.overrides)),
        }.items():
            with whole(job.folder / ".hydra" / f"{name}.yaml") as temporary:
                temporary.write_text(text)

    def fail(self, job: Launched, error: BaseException, seconds: float = 0.0) -> None:
        """Record a job's failure in its folder and for the end of the sweep."""
        job.error = error
        with suppress(OSError):  # a full disk has no room for that either; the session knows
            say_failed(job.folder, self.session, error, seconds, f"{job.folder.name}: ")

    def returns(self) -> list[JobReturn]:
        """What Hydra's sweeper gets of each job: its objective or figures, or its error.

        Hydra's own sweeper stops at a failed job, and would leave out later batches of jobs; so it is told nothing.
        """
        basic = self.config.hydra.sweeper._target_.endswith(("BasicSweeper", "QuickSweeper"))
        returned = []
        for job in self.jobs:
            failed = job.error is not None and not basic
            outcome = JobReturn(job.overrides, job.cfg, job.hydra_cfg, str(Path.cwd()), self.config.hydra.job.name)
            outcome.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            outcome.return_value = job.error if failed else job.result
            returned.append(outcome)
        return returned


class Composer:
    """Composes the jobs of a sweep; overrides that only set values are set in a copy of what was composed before.

    Hydra takes 40 to 100 ms to compose a config of ten groups, and 5 ms to copy it.
    """

    def __init__(self, loader: Any, master: DictConfig):
        self.loader, self.master = loader, master
        self.parser = OverridesParser.create()
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._plain: dict[str, bool] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job, as Hydra would compose it."""
        parsed = self.parser.parse_overrides(list(overrides))
        # Adding and deleting keys depends on their order, so such a job is composed whole.
        ordered = all(override.type == OverrideType.CHANGE for override in parsed)
        values = [override for override in parsed if ordered and self._sets_value(override)]
        chosen = tuple(word for word, override in zip(overrides, parsed, strict=True) if override not in values)
        if chosen not in self._composed:
            self._composed[chosen] = self.loader.load_sweep_config(self.master, list(chosen))
        config = copy.deepcopy(self._composed[chosen])
        OmegaConf.copy_cache(from_config=self.master, to_config=config)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        config.hydra.overrides.task = [override.input_line for override in parsed if not override.is_hydra_override()]
        return config

    def _sets_value(self, override: Override) -> bool:
        key = override.key_or_group
        if key not in self._plain:
            self._plain[key] = not override.is_hydra_override() and not self.loader.get_group_options(key)
        return self._plain[key] and override.package is None


def steer_together(sweep: Sweep, max_rows: int) -> list[JobReturn]:
    """Steer all jobs, those that share networks and number of steps as one batch of at most `max_rows` rows at a time.

    A batch is whole jobs, steered from the first step to the last and then written.
    """
    checks.whole_number(max_rows, "hydra.launcher.max_rows", 1)
    groups: dict[str, list[Launched]] = {}
    from zsteer.jobs import group_of  # which loads torch

    for job in sweep.jobs:
        if job.completed:
            job.result = _objective(job)
            continue
        try:
            checks.steer(job.cfg)
            groups.setdefault(group_of(job.cfg), []).append(job)
        except Exception as error:
            with suppress(OSError):
                sweep.begin(job)
            sweep.fail(job, error)
    bar = tqdm(total=sum(map(len, groups.values())), desc="Steering", unit="job", disable=not is_main_process())
    with bar:
        for jobs in groups.values():
            _steer_group(sweep, jobs, max_rows, bar)
    return sweep.returns()


def _steer_group(sweep: Sweep, jobs: Sequence[Launched], max_rows: int, bar: tqdm) -> None:
    from zsteer.jobs import Bench, Plan

    def failed(job: Launched, error: Exception) -> None:
        sweep.fail(job, error)
        bar.update()

    try:
        bench = Bench(jobs[0].cfg)
    except Exception as error:
        for job in jobs:
            with suppress(OSError):
                sweep.begin(job)
            failed(job, error)
        return
    batch: list[tuple[Launched, Plan]] = []
    for job in jobs:
        try:
            sweep.begin(job)
            plan = bench.plan(job.cfg)
        except Exception as error:
            failed(job, error)
            continue
        if batch and sum(len(planned.noise) for _, planned in batch) + len(plan.noise) > max_rows:
            _steer_batch(sweep, bench, batch, bar)
            batch = []
        batch.append((job, plan))
    if batch:
        _steer_batch(sweep, bench, batch, bar)


def _steer_batch(sweep: Sweep, bench: Any, batch: Sequence[tuple[Launched, Any]], bar: tqdm) -> None:
    from zsteer.jobs import keep_history
    from zsteer.steering import NonFiniteScore

    started = time.monotonic()
    for job, _ in batch:
        with suppress(OSError):  # a disk that is full now may not be when there is something to say
            say(job.folder, "running", 0.0)
    bar.set_postfix_str(f"{sum(len(plan.noise) for _, plan in batch)} rows")
    try:
        outcomes = bench.steer([plan for _, plan in batch], progress_bar=False)
    except BaseException as error:  # of the whole batch, such as memory: none of its jobs can be blamed or saved
        error = interrupt_of(error)
        for job, _ in batch:
            sweep.fail(job, error)
        bar.update(len(batch))
        if not isinstance(error, Exception):
            raise error from None
        return
    share = (time.monotonic() - started) / len(batch)

    def finish(job: Launched, outcome: Any) -> None:
        try:
            if isinstance(outcome, NonFiniteScore):
                keep_history(job.folder, outcome)
            if isinstance(outcome, Exception):
                raise outcome
            if is_main_process():
                outcome.write(job.folder)
            job.result = objective_of(outcome.content, job.cfg)
            say(job.folder, "completed", share)
        except Exception as error:
            sweep.fail(job, error, share)
        bar.update()

    with ThreadPoolExecutor() as pool:  # most of writing is to compress pictures, which other threads need not wait for
        list(pool.map(finish, (job for job, _ in batch), outcomes))


def run_processes(sweep: Sweep, num_parallel: int, gpus: Sequence[Any] | None) -> list[JobReturn]:
    """Run each job as a process of its own, as its command alone would run, `num_parallel` at a time."""
    checks.whole_number(num_parallel, "hydra.launcher.num_parallel", 1)
    if gpus is not None and len(gpus) < num_parallel:
        raise ValueError(f"hydra.launcher.gpus={list(gpus)} must have an entry for each of num_parallel={num_parallel}")
    places: SimpleQueue[Any] = SimpleQueue()
    for place in range(num_parallel):
        places.put(None if gpus is None else str(gpus[place]))
    waiting = [job for job in sweep.jobs if not job.completed]
    for job in sweep.jobs:
        if job not in waiting:
            job.result = _objective(job)
    processes: list[subprocess.Popen] = []
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(waiting), desc="Running", unit="job"))
        pool = stack.enter_context(ThreadPoolExecutor(num_parallel))

        def one(job: Launched) -> None:
            place = places.get()
            try:
                _run_process(sweep, job, place, processes)
            finally:
                places.put(place)
                bar.update()

        try:
            for done in [pool.submit(one, job) for job in waiting]:
                done.result()
        except BaseException:  # an interrupt ends what is running, and starts nothing more
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
    return sweep.returns()


def _run_process(sweep: Sweep, job: Launched, gpu: str | None, processes: list[subprocess.Popen]) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    with (job.folder / "output.log").open("w") as log:
        process = subprocess.Popen(_command_of(sweep, job), stdout=log, stderr=log, env=environment)
        processes.append(process)
        code = process.wait()
    status = _status(job.folder)
    if code == 0 and status.get("state") == "completed":
        job.result = _objective(job)
    elif status.get("state") == "failed":
        job.error = ValueError(status["error"])
        sweep.session.failures.append(f"{job.folder.name}: {status['error']}")
    else:  # it could not say so itself
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        sweep.fail(job, ValueError(f"its process {how}; see {job.folder / 'output.log'}"))


def _command_of(sweep: Sweep, job: Launched) -> list[str]:
    """The command that runs a job alone, in its folder."""
    given, _ = get_args_parser().parse_known_args(sys.argv[1:])
    options = [f"--config-dir={given.config_dir}"] if given.config_dir else []
    options += [f"--config-name={given.config_name}"] if given.config_name else []
    ours = ("hydra.mode=", "hydra.sweep", "hydra/sweep", "hydra.run", "hydra.launcher", "hydra/launcher")
    hydras = [word for word in sweep.config.hydra.overrides.hydra if not word.startswith(ours)]
    alone = ["hydra.mode=RUN", f"hydra.run.dir={job.folder}"]
    return [sys.executable, sys.argv[0], *options, *job.overrides, *hydras, *alone]


def _status(folder: Path) -> dict[str, Any]:
    path = folder / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _objective(job: Launched) -> Any:
    """What the sweeper gets of a job that is completed, from its folder."""
    metrics = job.folder / "metrics.json"
    return objective_of(json.loads(metrics.read_text()), job.cfg) if metrics.is_file() else None
