"""The launchers `slurm_batches` and `ray_batches`: each task of another launcher steers a batch of the sweep's jobs.

A task composes, checks and steers its jobs as `vectorized` does on one machine, into the folders that they would have
there. The sweep's folder has to be one that all machines see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from zsteer.settings import whole_number
from zsteer.sweeps.hydra_internals import interpolations_parsed_once, word_of
from zsteer.sweeps.launching import Sweep
from zsteer.sweeps.vectorized import steer_together


@dataclass
class Batches:
    """What the other launcher calls in place of a job: the batch of the task's number is steered.

    Args:
        task: the sweep's `app.main.Task`.
        batches: of each batch the overrides of its jobs.
        first: the number of the sweep's job that the first batch begins with.
    """

    context: HydraContext
    task: Any
    config: DictConfig
    batches: Sequence[Sequence[Sequence[str]]]
    first: int
    max_rows: int

    def __call__(self, cfg: DictConfig) -> list[JobReturn]:
        number = HydraConfig.get().job.num
        first = self.first + sum(map(len, self.batches[:number]))
        with interpolations_parsed_once():
            sweep = Sweep(self.context, self.task, self.config, self.batches[number], first, part=True)
            jobs = steer_together(sweep, self.max_rows)
        # Configs of hundreds of jobs are nothing that the sweep's own process needs back.
        return [replace(job, cfg=None, hydra_cfg=None) for job in jobs]


def steer_on_nodes(
    nodes: Launcher,
    context: HydraContext,
    task: Any,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    jobs_each: int,
    max_rows: int,
) -> list[JobReturn]:
    """Hand the jobs to another launcher, `jobs_each` to a task."""
    whole_number(jobs_each, "hydra.launcher.jobs_each", 1)
    batches = [job_overrides[begin : begin + jobs_each] for begin in range(0, len(job_overrides), jobs_each)]
    work = Batches(context, task, config, batches, first, max_rows)
    nodes.setup(hydra_context=context, task_function=work, config=config)
    # A task of the other launcher makes a folder, which is no job's.
    places = [[word_of("hydra.sweep.subdir", f".batches/{number}")] for number in range(len(batches))]
    return [job for batch in nodes.launch(places, 0) for job in batch.return_value]
