"""The launcher of `hydra/launcher=vectorized`: jobs steered together as one batch, in this process."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from tqdm import tqdm

from zsteer.files import is_main_process
from zsteer.settings import whole_number
from zsteer.status import interrupt_of, write_status
from zsteer.sweeps.hydra_internals import own_configs
from zsteer.sweeps.launching import Launched, Sweep, kept_objective, objective_of

if TYPE_CHECKING:
    from zsteer.steering.history import History
    from zsteer.steering.results import Steered
    from zsteer.steering.session import Job, Session

MOST_JOBS = 512  # in a batch: each keeps its folder by an open file, of which a process may often have 1,024


def steer_together(sweep: Sweep, max_rows: int) -> list[JobReturn]:
    """Steer all jobs, those that share networks and number of steps as one batch of at most `max_rows` rows at a time.

    A batch is whole jobs, steered from the first step to the last and then written.
    """
    whole_number(max_rows, "hydra.launcher.max_rows", 1)
    groups: dict[str, list[Launched]] = {}
    from zsteer.steering.session import group_of  # which loads torch

    for job in sweep.jobs:
        if job.completed:
            job.result = kept_objective(job)
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
    batch: list[tuple[Launched, Job]] = []
    for job in jobs:
        try:
            sweep.begin(job)
            job.provenance = sweep.provenance(job.cfg, job.overrides, own_configs())
            ready = session.job(job.cfg)
        except Exception as error:
            failed(job, error)
            continue
        rows = sum(len(other.noise) for _, other in batch) + len(ready.noise)
        if batch and (rows > max_rows or len(batch) == MOST_JOBS):
            _steer_batch(sweep, session, batch, bar)
            batch = []
        batch.append((job, ready))
    if batch:
        _steer_batch(sweep, session, batch, bar)


def _steer_batch(sweep: Sweep, session: "Session", batch: Sequence[tuple[Launched, "Job"]], bar: tqdm) -> None:
    """Steer some jobs and write them; a batch that fails is steered in halves, until the job to blame stands alone."""
    from zsteer.steering.history import NonFiniteScore
    from zsteer.training.loggers import open_loggers

    started = time.monotonic()
    for launched, _ in batch:
        with suppress(OSError):  # a disk that is full now may not be when there is something to say
            write_status(launched.folder, "running", 0.0, launched.provenance)
    rows = sum(len(job.noise) for _, job in batch)

    def show(step: int) -> None:
        bar.set_postfix_str(f"{rows} rows, step {step} of {session.num_steps}")

    steered: list[Any] = []
    try:
        show(0)
        histories = session.steer([job for _, job in batch], progress_bar=False, after_step=show)
        for (_, job), history in zip(batch, histories, strict=True):
            steered.append(_measured(session, job, history))
    except BaseException as error:
        error = interrupt_of(error)
        ended = not isinstance(error, Exception) or isinstance(error, InterruptedError)
        # Several devices' processes would not agree on halves.
        if ended or len(batch) == 1 or not session.alone:
            for launched, _ in batch:
                sweep.fail(launched, error, (time.monotonic() - started) / len(batch))
            bar.update(len(batch))
            if ended:
                raise error from None
            return
    if not steered:  # and only here, where no error holds the memory of what has failed
        middle = len(batch) // 2
        _steer_batch(sweep, session, batch[:middle], bar)
        _steer_batch(sweep, session, batch[middle:], bar)
        return
    share = (time.monotonic() - started) / len(batch)

    def finish(launched: Launched, outcome: Any) -> None:
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
            write_status(launched.folder, "completed", share, launched.provenance)
            launched.kept.close()
        except Exception as error:
            sweep.fail(launched, error, share)
        bar.update()

    # Most of writing is to compress pictures, which other threads need not wait for; W&B has one run at a time.
    plain = all(set(launched.cfg.get("logger") or ()) <= {"tensorboard"} for launched, _ in batch)
    try:
        with ThreadPoolExecutor(None if plain else 1) as pool:
            list(pool.map(finish, (launched for launched, _ in batch), steered))
    except BaseException as error:
        for launched, _ in batch:
            if launched.result is None and launched.error is None:
                sweep.fail(launched, error, share)
        raise


def _measured(session: "Session", job: "Job", history: "History") -> "Steered | Exception":
    """What a job did, or what went wrong with it alone."""
    try:
        return session.measure(job, history)
    except Exception as error:
        return error
