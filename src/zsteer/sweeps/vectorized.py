"""The launcher of `hydra/launcher=vectorized`: jobs steered together as one batch, in this process."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn
from tqdm import tqdm

from zsteer.files import is_main_process
from zsteer.settings import whole_number
from zsteer.status import interrupt_of, write_status
from zsteer.sweeps.launching import Launched, Sweep, kept_objective, objective_of

if TYPE_CHECKING:
    from zsteer.steering.history import History
    from zsteer.steering.results import Steered
    from zsteer.steering.session import Job, Session

    Batch = Sequence[tuple[Launched, Job]]

MOST_JOBS = 256  # in a batch: each of two batches' jobs keeps its folder by an open file, and 1,024 are often all


def steer_together(sweep: Sweep, max_rows: int) -> list[JobReturn]:
    """Steer all jobs, those that share networks and number of steps as one batch of at most `max_rows` rows at a time.

    A batch is whole jobs, steered from the first step to the last and then written.
    """
    whole_number(max_rows, "hydra.launcher.max_rows", 1)
    groups: dict[str, list[Launched]] = {}
    from zsteer.steering.session import group_of  # which loads torch

    for job in sweep.jobs:
        if job.completed:
            job.result = kept_objective(job.folder, job.cfg)
            continue
        if sweep.ready(job):
            groups.setdefault(group_of(job.cfg), []).append(job)
    bar = tqdm(total=sum(map(len, groups.values())), desc="Steering", unit="job", disable=not is_main_process())
    try:
        with bar:
            for jobs in groups.values():
                _steer_group(sweep, jobs, max_rows, bar)
    finally:
        for job in sweep.jobs:  # of a sweep that ends here, its process may go on
            job.kept.close()
    return sweep.returns()


def _steer_group(sweep: Sweep, jobs: Sequence[Launched], max_rows: int, bar: tqdm) -> None:
    from zsteer.steering.session import Session

    def failed(job: Launched, error: Exception) -> None:
        sweep.fail(job, error)
        bar.update()

    try:
        session = Session(jobs[0].cfg)
        _ = session.references, session.fitted_method  # without which no job of them can be steered
    except Exception as error:
        for job in jobs:
            with suppress(OSError, ValueError):
                sweep.begin(job)
            failed(job, error)
        return
    with Writing(sweep, session, bar) as writing:
        batch: list[tuple[Launched, Job]] = []
        for job in jobs:
            try:
                sweep.begin(job)
                job.provenance = sweep.provenance(job)
                ready = session.job(job.cfg)
            except Exception as error:
                failed(job, error)
                continue
            rows = sum(len(other.noise) for _, other in batch) + len(ready.noise)
            if batch and (rows > max_rows or len(batch) == MOST_JOBS):
                _steer_batch(writing, batch)
                batch = []
            batch.append((job, ready))
        if batch:
            _steer_batch(writing, batch)


def _steer_batch(writing: "Writing", batch: "Batch") -> None:
    """Steer some jobs, to be written; a batch that fails is steered in halves, until the job to blame stands alone."""
    sweep, session = writing.sweep, writing.session
    started = time.monotonic()
    for launched, _ in batch:
        with suppress(OSError):  # a disk that is full now may not be when there is something to say
            write_status(launched.folder, "running", 0.0, launched.provenance)
    rows = sum(len(job.noise) for _, job in batch)

    def show(step: int) -> None:
        writing.bar.set_postfix_str(f"{rows} rows, step {step} of {session.num_steps}")

    histories: list[History] = []
    try:
        show(0)
        histories = session.steer([job for _, job in batch], progress_bar=False, after_step=show)
    except BaseException as error:
        error = interrupt_of(error)
        ended = not isinstance(error, Exception) or isinstance(error, InterruptedError)
        # Several devices' processes would not agree on halves.
        if ended or len(batch) == 1 or not session.alone:
            for launched, _ in batch:
                sweep.fail(launched, error, (time.monotonic() - started) / len(batch))
            writing.bar.update(len(batch))
            if ended:
                raise error from None
            return
    if not histories:  # and only here, where no error holds the memory of what has failed
        middle = len(batch) // 2
        _steer_batch(writing, batch[:middle])
        _steer_batch(writing, batch[middle:])
        return
    writing.begin(batch, histories, (time.monotonic() - started) / len(batch))


class Writing:
    """Measures and writes a batch while the next one moves, which leaves one of two cores idle.

    However the block ends, all that has been steered is written.
    """

    def __init__(self, sweep: Sweep, session: "Session", bar: tqdm):
        self.sweep, self.session, self.bar = sweep, session, bar
        self._thread = ThreadPoolExecutor(1)
        self._last: Future | None = None

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None and self._last is not None:
            self._last.result()

    def begin(self, batch: "Batch", histories: "list[History]", seconds: float) -> None:
        """Have a batch written, each job of which took so long; at once, when the one before is."""
        before, self._last = self._last, self._thread.submit(self._write, batch, histories, seconds)
        if before is not None:
            before.result()

    def _write(self, batch: "Batch", histories: "list[History]", seconds: float) -> None:
        # Most of writing is to compress pictures, which other threads need not wait for; W&B has one run at a time.
        plain = all(set(launched.cfg.get("logger") or ()) <= {"tensorboard"} for launched, _ in batch)
        try:
            outcomes = [_measured(self.session, job, own) for (_, job), own in zip(batch, histories, strict=True)]
            with ThreadPoolExecutor(None if plain else 1) as pool:
                jobs = (launched for launched, _ in batch)
                list(pool.map(lambda launched, outcome: self._finish(launched, outcome, seconds), jobs, outcomes))
        except BaseException as error:
            for launched, _ in batch:
                if launched.result is None and launched.error is None:
                    self.sweep.fail(launched, error, seconds)
            raise

    def _finish(self, launched: Launched, outcome: "Steered | Exception", seconds: float) -> None:
        from zsteer.steering.history import NonFiniteScore
        from zsteer.training.loggers import open_loggers

        try:
            if isinstance(outcome, Exception):
                if isinstance(outcome, NonFiniteScore) and is_main_process():
                    outcome.history.save(launched.folder)
                raise outcome
            launched.cfg.run_folder = str(launched.folder)
            with open_loggers(launched.cfg, launched.folder) as loggers:
                if is_main_process():
                    outcome.log(loggers)
                    outcome.write(launched.folder)
            launched.result = objective_of(outcome.metrics, launched.cfg)
            write_status(launched.folder, "completed", seconds, launched.provenance)
            launched.kept.close()
        except Exception as error:
            self.sweep.fail(launched, error, seconds)
        self.bar.update()


def _measured(session: "Session", job: "Job", history: "History") -> "Steered | Exception":
    """What a job did, or what went wrong with it alone."""
    try:
        return session.measure(job, history)
    except Exception as error:
        return error
