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
from collections.abc import Callable, Sequence
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
    """What was asked for and six random digits, by which two runs of one second differ.

    From the command line, not from `hydra.overrides`, which in a sweep differ from job to job.
    """
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith(("-", "hydra"))]
    return slug([slug(overrides, longest=60), secrets.token_hex(3)])


OmegaConf.register_new_resolver("zsteer.run_name", _run_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("zsteer.slug", slug, replace=True)
OmegaConf.register_new_resolver("zsteer.reciprocal", lambda number: 1 / number, replace=True)
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
    failures: list[str] = field(default_factory=list)


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
            job = functools.partial(run_job, task, session)
            functools.update_wrapper(job, task)
            wrapped = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)
            verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
            try:
                refuse_finished(sys.argv[1:])
                with env_override({"HYDRA_FULL_ERROR": "1"}):  # Hydra then leaves its errors to us
                    try:
                        wrapped()
                    finally:
                        if session.sweep is not None:
                            from zsteer import sweeps  # which draws: a single run need not wait for that

                            sweeps.summarize(session.sweep)
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


def run_job(task: Callable[[DictConfig], Any], session: Session, cfg: DictConfig) -> Any:
    """Run one job, its `status.json` saying how it stands; a failure is recorded and passed on."""
    folder = output_folder()
    session.started = True
    swept = HydraConfig.get().mode == RunMode.MULTIRUN
    if swept:
        session.sweep = Path(HydraConfig.get().sweep.dir)
    started = time.monotonic()

    def say(state: str, **more: str) -> None:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # the other processes of a distributed run share its folder
            status = {"state": state, **more, "seconds": round(time.monotonic() - started, 3)}
            write_json(folder / "status.json", status)

    say("running")
    try:
        devices = OmegaConf.select(cfg, "trainer.devices", default=1)
        if swept and devices not in (1, "1"):
            # Their processes would run the whole sweep again, and train with one another's jobs.
            raise ValueError(f"trainer.devices={devices} must be 1 in a sweep; run the jobs one by one")
        result = task(cfg)
    except BaseException as error:
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            error = error.__context__  # Lightning turns one into the other
        session.failures.append(f"{folder.name}: {describe(error)}" if swept else describe(error))
        say("failed", error=describe(error), traceback=traceback.format_exc())
        raise error from None
    say("completed")
    return result


def refuse_finished(words: Sequence[str]) -> None:
    """Refuse a folder that already holds a completed run or sweep, before Hydra writes this one's config over its own.

    Raises:
        ValueError: it does.
    """
    for word in words:
        key, _, value = word.partition("=")
        folders = [Path(value)] if key == "hydra.run.dir" else Path(value).glob("*") if key == "hydra.sweep.dir" else []
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
