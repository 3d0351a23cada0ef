"""From a command line to a finished run: compose the config, keep `status.json`, say in one line what went wrong.

Nothing here imports torch, so that `--help` and config errors come at once.
"""

import functools
import json
import os
import re
import secrets
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsteer.files import write_json

PACKAGE = Path(__file__).parent
# A wheel carries the configs inside the package; a clone has them at its root.
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parents[1] / "configs"

# What a user can put right: reported in a line, without a traceback on the screen.
USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException, KeyboardInterrupt)


def slug(words: Sequence[str] | str, longest: int = 80) -> str:
    """Words as one file name of letters, digits, `.`, `_` and `-`: overrides and globs trip over `=` and `,`."""
    text = words if isinstance(words, str) else "_".join(str(word) for word in words)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-_.")[:longest]


def _run_name() -> str:
    """Date and time, what was asked for, and six random digits, by which two runs of one second differ.

    From the command line, not from `hydra.overrides`, which in a sweep differ from job to job. The other processes of a
    distributed run, which its first one starts, use the same name.
    """
    if not is_main_process() and "ZSTEER_RUN" in os.environ:
        return os.environ["ZSTEER_RUN"]
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith(("-", "hydra"))]
    name = slug([slug(overrides, longest=60), secrets.token_hex(3)])
    os.environ["ZSTEER_RUN"] = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{name}"
    return os.environ["ZSTEER_RUN"]


def _accelerator() -> str:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


OmegaConf.register_new_resolver("zsteer.accelerator", _accelerator, replace=True)
OmegaConf.register_new_resolver("zsteer.run_name", _run_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("zsteer.slug", slug, replace=True)
OmegaConf.register_new_resolver("zsteer.reciprocal", lambda number: 1 / number, replace=True)
OmegaConf.register_new_resolver("zsteer.plus", lambda one, other: one + other, replace=True)
OmegaConf.register_new_resolver("zsteer.times", lambda one, other: one * other, replace=True)
OmegaConf.register_new_resolver("zsteer.bundled", lambda name: str(PACKAGE / "bundle" / name), replace=True)


def compose(config_name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> DictConfig:
    """The config that a command would run with, for notebooks and tests; `config_dir` holds configs of the user's."""
    more = [] if config_dir is None else [f"hydra.searchpath=['{Path(config_dir).absolute()}']"]
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose(config_name, [*overrides, *more])


@dataclass
class Session:
    """What one call of a command ran: whether it got to a job, its sweep's folder if any, a line for each failure."""

    started: bool = False
    sweep: Path | None = None
    resumed: bool = False
    failures: list[str] = field(default_factory=list)


@dataclass
class Job:
    """A command's task as Hydra and its launchers call it: one job, its folder's `status.json` saying how it stands."""

    task: Callable[[DictConfig], Any]
    session: Session

    def __post_init__(self) -> None:
        functools.update_wrapper(self, self.task)

    def __call__(self, cfg: DictConfig) -> Any:
        folder = output_folder()
        self.session.started = True
        swept = HydraConfig.get().mode == RunMode.MULTIRUN
        if swept:
            self.session.sweep = Path(HydraConfig.get().sweep.dir)
        with recorded(folder, self.session, label=f"{folder.name}: " if swept else ""):
            if self.session.resumed and not swept:
                raise ValueError("resume= goes on with a sweep; add -m and the words that the sweep was started with")
            devices = OmegaConf.select(cfg, "trainer.devices", default=1)
            if swept and devices not in (1, "1"):
                # Their processes would run the whole sweep again, and train with one another's jobs.
                raise ValueError(
                    f"trainer.devices={devices} must be 1 in a sweep by hydra/launcher=basic; choose processes"
                )
            return objective_of(self.task(cfg), cfg)


def main(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a config into a command: Hydra's, with our errors and a `status.json` in each run folder.

    What a user can put right ends in one line per failure and exit code 1; a sweep is summarized whatever became of its
    jobs. `HYDRA_FULL_ERROR=1` shows tracebacks.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def command() -> None:
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # Lightning's, on torch 2.14 and later
            session = Session()
            job = Job(task, session)
            wrapped = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)
            verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
            try:
                sys.argv[1:] = resumable(sys.argv[1:], session)
                refuse_finished(sys.argv[1:], session)
                with env_override({"HYDRA_FULL_ERROR": "1"}):  # Hydra then leaves its errors to us
                    try:
                        wrapped()
                    finally:
                        if session.sweep is not None and is_main_process() and any(session.sweep.glob("*/status.json")):
                            from zsteer import sweeps  # which draws: a single run need not wait for that

                            sweeps.summarize(session.sweep)
                            session.failures = session.failures or sweeps.failures(session.sweep)
                if session.failures:  # which a launcher has not raised, so that its other jobs still ran
                    raise ValueError
            except USER_ERRORS as error:
                if verbose:
                    raise
                hydras = isinstance(error, HydraException)  # some of which are OSErrors too
                if isinstance(error, OSError) and not hydras and not session.started:
                    key = "hydra.sweep.dir" if session.sweep else "hydra.run.dir"
                    error = ValueError(f"{key}: cannot write {error.filename} ({error.strerror}); name another folder")
                for line in session.failures or [describe(error)]:
                    print(f"error: {line}", file=sys.stderr)
                sys.exit(1)

        return command

    return decorate


def is_main_process() -> bool:
    """Whether this process writes a run's files: not the others of a distributed run, which share its folder."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # the first that is set counts, as for Lightning
    return next((os.environ[name] for name in ranks if name in os.environ), "0") == "0"


def say(folder: Path, state: str, seconds: float, **more: str) -> None:
    """Write a job's `status.json`."""
    if is_main_process():
        write_json(folder / "status.json", {"state": state, **more, "seconds": round(seconds, 3)})


def say_failed(folder: Path, session: Session, error: BaseException, seconds: float, label: str = "") -> None:
    """Record a job's failure in its `status.json` and in the session."""
    session.failures.append(f"{label}{describe(error)}")
    trace = "".join(traceback.format_exception(error))
    say(folder, "failed", seconds, error=describe(error), traceback=trace)


@contextmanager
def recorded(folder: Path, session: Session, label: str) -> Iterator[None]:
    """Keep a job's `status.json` while the block runs; a failure is recorded and passed on."""
    started = time.monotonic()
    say(folder, "running", 0.0)
    try:
        yield
    except BaseException as error:
        error = interrupt_of(error)
        say_failed(folder, session, error, time.monotonic() - started, label)
        raise error from None
    say(folder, "completed", time.monotonic() - started)


def interrupt_of(error: BaseException) -> BaseException:
    """The interrupt behind an exit that Lightning made of one, or else the error itself."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        return error.__context__
    return error


def objective_of(result: Any, cfg: DictConfig) -> Any:
    """What a sweeper gets of a job: the figures that the key `objective` names, as numbers; all figures if it is null.

    Raises:
        ValueError: no such figure, or it is unknown.
    """
    wanted = OmegaConf.select(cfg, "objective")
    if wanted is None:
        return result
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if not isinstance(result.get(name), int | float):
            raise ValueError(f"objective={name} must be one of the job's figures, {', '.join(result)}, and known")
    values = tuple(float(result[name]) for name in names)
    return values[0] if isinstance(wanted, str) else values


def resumable(words: Sequence[str], session: Session) -> list[str]:
    """The command's words with `resume=DIR`, which goes on with the sweep in DIR, turned into its folder.

    Raises:
        ValueError: DIR holds no sweep.
    """
    resumed = [word.partition("=")[2] for word in words if word.startswith("resume=")]
    if not resumed:
        return list(words)
    if not (Path(resumed[-1]) / "multirun.yaml").is_file():
        raise ValueError(f"resume={resumed[-1]} must be a sweep's folder; it has no multirun.yaml")
    session.resumed = True
    rest = [word for word in words if not word.startswith(("resume=", "hydra.sweep.dir="))]
    return [*rest, f"hydra.sweep.dir={resumed[-1]}"]


def refuse_finished(words: Sequence[str], session: Session) -> None:
    """Refuse a folder that already holds a completed run or sweep, before Hydra writes this one's config over its own.

    A sweep that is resumed may have completed jobs, which are left as they are.

    Raises:
        ValueError: it does.
    """
    for word in words:
        key, _, value = word.partition("=")
        folders = [Path(value)] if key == "hydra.run.dir" else []
        if key == "hydra.sweep.dir" and not session.resumed:
            folders = Path(value).glob("*")
        for folder in folders:
            status = folder / "status.json"
            if status.is_file() and json.loads(status.read_text())["state"] == "completed":
                raise ValueError(f"{key}={value} already holds a completed run; name another folder")


def output_folder() -> Path:
    """The folder of the run that is under way."""
    return Path(HydraConfig.get().runtime.output_dir)


def describe(error: BaseException) -> str:
    """An error as one line, with what caused it where the error itself does not say."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = str(error)
    cause = error.__cause__
    if cause is not None and isinstance(error, HydraException | OmegaConfBaseException) and str(cause) not in text:
        text = f"{text}: {cause}"
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.strerror}: {error.filename}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__
