"""zsteer's launchers and sweeper, where Hydra looks for plugins: each launcher hands its jobs to `zsteer.sweeps`.

Hydra imports this file whenever it starts, so nothing heavy is imported here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Imported here and not in `zsteer.sweeps.hydra_internals`, because Hydra runs this module of its own anew when it looks
# for plugins: a class imported before that is another one.
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from zsteer.status import refuse_completed_sweep


class QuickSweeper(BasicSweeper):
    """Hydra's own sweeper, without composing each job once before the launcher does: that takes 0.1 s a job."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if (call := getattr(task_function, "call", None)) is not None:  # a task of ours, not another application's
            if not call.resumed:
                refuse_completed_sweep(Path(config.hydra.sweep.dir))  # before Hydra writes its multirun.yaml
            call.sweep = Path(config.hydra.sweep.dir)  # to be summarized, whoever launches the jobs

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        pass


class SearchSweeper(Sweeper):
    """Optuna's sweeper, which goes on with a search that was ended; the settings are those of hydra-optuna-sweeper."""

    def __init__(self, **settings: Any):
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from zsteer.sweeps.search import Search  # which needs Optuna

        self.search = Search(self.settings, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        self.search.run(arguments)


class OwnSearch(Callback):
    """Has `hydra/sweeper=optuna`, wherever it was written, name the sweeper that goes on with a search."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.sweeper._target_.endswith(".OptunaSweeper"):
            config.hydra.sweeper._target_ = "hydra_plugins.zsteer_launchers.SearchSweeper"


class VectorizedLauncher(Launcher):
    """Steers the rows of many jobs as one batch, in this process.

    Args:
        max_rows: noise vectors that are steered at once, unless one job alone has more: what bounds memory.
    """

    def __init__(self, max_rows: int):
        self.max_rows = max_rows

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep = (hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from zsteer.sweeps.hydra_internals import interpolations_parsed_once
        from zsteer.sweeps.launching import Sweep
        from zsteer.sweeps.vectorized import steer_together

        with interpolations_parsed_once():
            return steer_together(Sweep(*self.sweep, job_overrides, initial_job_idx), self.max_rows)


class ProcessLauncher(Launcher):
    """Runs each job as a process of its own, several at a time.

    Args:
        num_parallel: processes at a time.
        gpus: for each of them the devices that it sees, as in `CUDA_VISIBLE_DEVICES`; null leaves them all visible.
    """

    def __init__(self, num_parallel: int, gpus: Sequence[Any] | None):
        self.num_parallel, self.gpus = num_parallel, gpus

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep = (hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from zsteer.sweeps.launching import Sweep
        from zsteer.sweeps.processes import run_processes

        return run_processes(Sweep(*self.sweep, job_overrides, initial_job_idx), self.num_parallel, self.gpus)


class BatchLauncher(Launcher):
    """Has each task of another launcher steer a batch of jobs, as the vectorized launcher does.

    Args:
        nodes: the other launcher.
        jobs_each: jobs of a task.
        max_rows: noise vectors that a task steers at once.
    """

    def __init__(self, nodes: Launcher, jobs_each: int, max_rows: int):
        self.nodes, self.jobs_each, self.max_rows = nodes, jobs_each, max_rows

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep = (hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from zsteer.sweeps.nodes import steer_on_nodes

        return steer_on_nodes(self.nodes, *self.sweep, job_overrides, initial_job_idx, self.jobs_each, self.max_rows)
