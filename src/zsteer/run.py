"""From a command line to a finished run: compose the config, keep `status.json`, say in one line what went wrong.

Nothing here imports torch, so that `--help` and config errors come at once.
"""

import functools
import os
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsteer.files import write_json

PACKAGE = Path(__file__).parent
# A wheel carries the configs inside the package; a clone has them at its root.
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parents[1] / "configs"

# What a user can put right: reported in a line, without a traceback on the screen.
USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException, KeyboardInterrupt)


def slug(words: Sequence[str] | str, longest: int = 80) -> str:
    """Words as one file name: letters, digits, `.`, `_` and `-` (no `=` or `,`, which overrides and globs trip over)."""
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


def compose(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config that a command would run with, for notebooks and tests."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose(config_name, list(overrides))


def main(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a config into a command: Hydra's, with our errors and a `status.json` in each run folder."""

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def command() -> None:
            failures: list[str] = []
            job = functools.partial(_job, task, failures)
            functools.update_wrapper(job, task)
            wrapped = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                wrapped()
                return
            try:
                with env_override({"HYDRA_FULL_ERROR": "1"}):  # Hydra then leaves its errors to us
                    wrapped()
            except USER_ERRORS as error:
                for line in failures or [describe(error)]:
                    print(f"error: {line}", file=sys.stderr)
                sys.exit(1)

        return command

    return decorate


def _job(task: Callable[[DictConfig], Any], failures: list[str], cfg: DictConfig) -> Any:
    folder = output_folder()
    started = time.monotonic()
    _refuse_completed(folder)

    def status(state: str, **more: Any) -> None:
        write_json(folder / "status.json", {"state": state, **more, "seconds": round(time.monotonic() - started, 3)})

    status("running")
    try:
        result = task(cfg)
    except BaseException as error:
        failures.append(f"{describe(error)} [{folder.name}]" if HydraConfig.get().mode.name == "MULTIRUN" else describe(error))
        status("failed", error=describe(error), traceback=traceback.format_exc())
        raise
    status("completed")
    return result


def output_folder() -> Path:
    """The folder of the run that is under way."""
    return Path(HydraConfig.get().runtime.output_dir)


def _refuse_completed(folder: Path) -> None:
    status = folder / "status.json"
    if status.is_file() and '"completed"' in status.read_text():
        raise ValueError(f"hydra.run.dir={folder} already holds a completed run; name another folder")


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
