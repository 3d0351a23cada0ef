"""The jobs of a sweep as Hydra's launchers get them: composed, each with a folder, and what became of them.

The launchers that Hydra knows (`hydra_plugins.zsteer_launchers`) hand their jobs to `vectorized` or to `processes`. One
job's failure takes no other with it, and a sweep that is resumed leaves the jobs that are completed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from tqdm import tqdm

from zsteer.files import atomic_write, is_main_process, read_json
from zsteer.locks import in_use
from zsteer.status import describe, refuse_completed_sweep, write_failure
from zsteer.sweeps.hydra_internals import Composer, yaml_of
from zsteer.sweeps.jobs import state_of, words_of


@dataclass
class Launched:
    """One job of a sweep: its overrides, its config (with Hydra's own section), its folder, and what became of it.

    `kept` holds the lock of the folder while this process writes into it; `provenance` is for its `status.json`.
    """

    overrides: list[str]
    cfg: DictConfig
    hydra_cfg: DictConfig
    folder: Path
    result: Any = None
    error: BaseException | None = None
    kept: ExitStack = field(default_factory=ExitStack)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def completed(self) -> bool:
        """Whether its folder says so, and holds nothing that is damaged."""
        return state_of(self.folder).get("state") == "completed"


@dataclass
class Sweep:
    """The jobs that Hydra's sweeper asks for, and what it needs to compose and run them.

    Args:
        part: whether these are some of the jobs, of which other machines have the others.
    """

    context: HydraContext
    task: Any
    config: DictConfig
    job_overrides: Sequence[Sequence[str]]
    first: int
    part: bool = False
    jobs: list[Launched] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The task is an `app.main.Task`.
        self.call, self.check = self.task.call, self.task.command.ready
        self.folder = Path(self.config.hydra.sweep.dir)
        first = self.first == 0 and not self.part
        if first and not self.call.resumed:  # later batches of a search find those before
            refuse_completed_sweep(self.folder)
        self.call.started = True
        if first:
            self.call.sweep = None  # one that is refused is not summarized
        self.jobs = list(self._composed())
        self._check_apart()
        self._check_same()
        self._refuse_living()
        self.call.sweep = self.folder

    @property
    def grid(self) -> bool:
        """Whether the sweeper is Hydra's own, which knows all jobs before the first, and not a search."""
        return self.config.hydra.sweeper._target_.endswith(("BasicSweeper", "QuickSweeper"))

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
            words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # as they were typed
            yield Launched(words, cfg, config, folder)

    def _check_apart(self) -> None:
        """
        Raises:
            ValueError: two jobs would have one folder.
        """
        taken: set[Path] = set()
        for job in self.jobs:
            if job.folder in taken:
                sweep: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
                raise ValueError(
                    f"hydra.sweep.subdir={sweep['subdir']} gives two jobs the folder {job.folder.name}; "
                    "let it begin with ${hydra.job.num}_"
                )
            taken.add(job.folder)

    def _check_same(self) -> None:
        """
        Raises:
            ValueError: the folder that is to be resumed holds jobs of other words.
        """
        known = {job.folder.name: job.overrides for job in self.jobs}
        all_known = self.grid and not self.part and self.config.hydra.sweeper.get("max_batch_size") is None
        for status in self.folder.glob("*/status.json") if self.call.resumed else ():
            words = words_of(status.parent)
            mine = known.get(status.parent.name)
            if (mine is None and all_known) or (mine is not None and words not in (None, mine)):
                raise ValueError(
                    f"resume={self.folder} holds {status.parent.name}, which is no job of this command; resume with "
                    "the words that the sweep was started with"
                )

    def _refuse_living(self) -> None:
        """
        Raises:
            ValueError: a job still runs, as the children of a sweep that was killed do until they have saved.
        """
        for job in self.jobs:
            if job.folder.is_dir() and not job.completed:
                with in_use(job.folder, "hydra.sweep.dir"):
                    pass

    def begin(self, job: Launched) -> None:
        """Make a job's folder with Hydra's three files of its config, and keep it until the job has ended.

        Raises:
            ValueError: another run has it.
        """
        job.kept.enter_context(in_use(job.folder, "hydra.sweep.dir"))
        if not is_main_process():
            return
        for name, text in {
            "config": yaml_of(job.cfg),
            "hydra": "hydra:\n" + indent(yaml_of(job.hydra_cfg.hydra), "  "),
            "overrides": yaml_of(job.overrides),
        }.items():
            with atomic_write(job.folder / ".hydra" / f"{name}.yaml") as temporary:
                temporary.write_text(text, encoding="utf-8")

    def provenance(self, job: Launched) -> dict[str, Any]:
        """What a job is made of, for its `status.json`."""
        return self.task.command.provenance(job.cfg, job.overrides, self.task.configs)

    def ready(self, job: Launched) -> bool:
        """Whether a job's config passes its checks; if not, it has failed."""
        try:
            self.check(job.cfg, job.overrides)
        except Exception as error:
            with suppress(OSError, ValueError):
                self.begin(job)
            self.fail(job, error)
        return job.error is None

    def fail(self, job: Launched, error: BaseException, seconds: float = 0.0) -> None:
        """Record a job's failure in its folder and for the end of the sweep."""
        job.error = ValueError(describe(error))  # which holds nothing of what the job was computed from
        self.call.failures.append(f"{job.folder.name}: {describe(error)}")
        job.kept.close()
        # A full disk has no room for that either, and a folder that another run has is not ours to write into.
        with suppress(OSError, ValueError), in_use(job.folder, "hydra.sweep.dir"):
            write_failure(job.folder, error, seconds, job.provenance)

    def returns(self) -> list[JobReturn]:
        """What Hydra's sweeper gets of each job: its objective or figures, or its error.

        Hydra's own sweeper stops at a failed job, and would leave out later batches of jobs; so it is told nothing.
        """
        returned = []
        for job in self.jobs:
            failed = job.error is not None and not self.grid
            outcome = JobReturn(job.overrides, job.cfg, job.hydra_cfg, str(Path.cwd()), self.config.hydra.job.name)
            outcome.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            outcome.return_value = job.error if failed else job.result
            returned.append(outcome)
        return returned


def kept_objective(folder: Path, cfg: DictConfig) -> Any:
    """What the sweeper gets of a job that is completed, from its folder."""
    metrics = folder / "metrics.json"
    return objective_of(read_json(metrics), cfg) if metrics.is_file() else None


def objective_of(metrics: Mapping[str, Any], cfg: DictConfig) -> Any:
    """What a sweeper gets of a job: the figures that the key `objective` names, as numbers; all figures if it is null.

    Raises:
        ValueError: no such figure, or it is unknown.
    """
    wanted = OmegaConf.select(cfg, "objective")
    if wanted is None:
        return dict(metrics)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if not isinstance(metrics.get(name), int | float):
            raise ValueError(f"objective={name} must be one of the job's figures, {', '.join(metrics)}, and known")
    values = tuple(float(metrics[name]) for name in names)
    return values[0] if isinstance(wanted, str) else values
