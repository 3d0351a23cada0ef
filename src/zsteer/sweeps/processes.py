"""The launcher of `hydra/launcher=processes`: jobs as processes of their own, each with devices of its own."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf
from tqdm import tqdm

from zsteer.files import LAST_CHECKPOINT
from zsteer.settings import whole_number
from zsteer.status import read_status
from zsteer.sweeps.hydra_internals import options_of_command, word_of
from zsteer.sweeps.launching import Launched, Sweep, kept_objective

STARTED_BY = "ZSTEER_STARTED_BY"  # the variable that tells a job's process which one it has to end with


def run_processes(sweep: Sweep, num_parallel: int, gpus: Sequence[Any] | None) -> list[JobReturn]:
    """Run each job as a process of its own, as its command alone would run, `num_parallel` at a time."""
    whole_number(num_parallel, "hydra.launcher.num_parallel", 1)
    if gpus is not None and len(gpus) < num_parallel:
        raise ValueError(f"hydra.launcher.gpus={list(gpus)} must have an entry for each of num_parallel={num_parallel}")
    places: SimpleQueue[Any] = SimpleQueue()
    for place in range(num_parallel):
        places.put(None if gpus is None else str(gpus[place]))
    waiting = [job for job in sweep.jobs if not job.completed]
    for job in sweep.jobs:
        if job not in waiting:
            job.result = kept_objective(job.folder, job.cfg)
    processes: list[subprocess.Popen] = []
    ended = threading.Event()
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(waiting), desc="Running", unit="job"))
        pool = stack.enter_context(ThreadPoolExecutor(num_parallel))

        def one(job: Launched) -> None:
            place = places.get()
            try:
                if sweep.ready(job):
                    _run_process(sweep, job, place, processes, ended)
            except Exception as error:
                sweep.fail(job, error)
            finally:
                places.put(place)
                bar.update()

        try:
            for done in [pool.submit(one, job) for job in waiting]:
                done.result()
        except BaseException:  # an interrupt ends what is running, and starts nothing more
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
    return sweep.returns()


def _run_process(
    sweep: Sweep, job: Launched, gpu: str | None, processes: list[subprocess.Popen], ended: threading.Event
) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "status.json").unlink(missing_ok=True)  # of an earlier attempt
    environment = {**os.environ, STARTED_BY: str(os.getpid())}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    with (job.folder / "output.log").open("w") as log:
        process = subprocess.Popen(_command_of(sweep, job), stdout=log, stderr=log, env=environment)
        processes.append(process)
        if ended.is_set():  # while this one started
            process.terminate()
        code = process.wait()
    status = read_status(job.folder)
    if code == 0 and status.get("state") == "completed":
        job.result = kept_objective(job.folder, job.cfg)
    elif status.get("state") == "failed":
        job.error = ValueError(status["error"])
        sweep.call.failures.append(f"{job.folder.name}: {status['error']}")
    else:  # it could not say so itself
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        sweep.fail(job, ValueError(f"its process {how}; see {job.folder / 'output.log'}"))


def _command_of(sweep: Sweep, job: Launched) -> list[str]:
    """The command that runs a job alone, in its folder, and goes on with what it has trained there."""
    ours = ("hydra.mode=", "hydra.sweep", "hydra/sweep", "hydra.run", "hydra.launcher", "hydra/launcher")
    typed: Any = OmegaConf.to_container(sweep.config.hydra.overrides.hydra, resolve=False)
    hydras = [word for word in typed if not word.startswith(ours)]
    alone = ["hydra.mode=RUN", word_of("hydra.run.dir", job.folder)]
    if "ckpt_path" in job.cfg and (job.folder / LAST_CHECKPOINT).is_file():  # of an attempt that was interrupted
        alone.append(word_of("ckpt_path", job.folder / LAST_CHECKPOINT))
    return [sys.executable, sys.argv[0], *options_of_command(), *job.overrides, *hydras, *alone]
