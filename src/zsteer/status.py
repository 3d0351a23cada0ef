"""How a run stands: its `status.json`, and what went wrong as one line."""

import re
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zsteer.files import is_main_process, read_json, write_json


class Terminated(BaseException):
    """SIGTERM came."""


def terminate(*_: object) -> None:
    """A handler of SIGTERM.

    Raises:
        Terminated: always.
    """
    raise Terminated


# What a user can put right, or did: reported in a line, without a traceback on the screen.
USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException, YAMLError, KeyboardInterrupt, Terminated)


@dataclass
class Call:
    """What one call of a command ran: whether it got to a job, its sweep's folder if any, a line for each failure."""

    started: bool = False
    sweep: Path | None = None
    resumed: bool = False
    failures: list[str] = field(default_factory=list)


def write_status(folder: Path, state: str, seconds: float, **more: str) -> None:
    """Write a job's `status.json`."""
    if is_main_process():
        write_json(folder / "status.json", {"state": state, **more, "seconds": round(seconds, 3)})


def read_status(folder: Path) -> dict[str, Any]:
    """What a job's `status.json` says; {} without one, and a failure where a power cut has emptied it."""
    path = folder / "status.json"
    if not path.is_file():
        return {}
    status = read_json(path)
    if isinstance(status, dict) and "state" in status:
        return status
    return {"state": "failed", "error": f"{path} is damaged; run the job again"}


def refuse_completed(folder: Path, key: str) -> None:
    """
    Raises:
        ValueError: the folder holds a completed run, which nothing may write over.
    """
    if read_status(folder).get("state") == "completed":
        raise ValueError(f"{key}={folder} already holds a completed run; name another folder")


def refuse_completed_sweep(folder: Path) -> None:
    """
    Raises:
        ValueError: the folder holds jobs that are completed; a sweep that is resumed leaves them as they are.
    """
    for status in sorted(folder.glob("*/status.json")):
        if read_status(status.parent).get("state") == "completed":
            raise ValueError(
                f"hydra.sweep.dir={folder} already holds a completed run, {status.parent.name}; go on with that sweep "
                f"by resume={folder}, or name another folder"
            )


def write_failure(folder: Path, error: BaseException, seconds: float) -> None:
    """Write a failed job's `status.json`, with its traceback."""
    trace = "".join(traceback.format_exception(error))
    write_status(folder, "failed", seconds, error=describe(error), traceback=trace)


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Keep a job's `status.json` while the block runs; a failure is recorded and passed on."""
    started = time.monotonic()
    write_status(folder, "running", 0.0)
    try:
        yield
    except BaseException as error:
        cause = interrupt_of(error)
        with suppress(OSError):  # a full disk has no room for that either
            write_failure(folder, cause, time.monotonic() - started)
        if cause is not error:
            raise cause from None
        raise
    write_status(folder, "completed", time.monotonic() - started)


def interrupt_of(error: BaseException) -> BaseException:
    """The interrupt behind an exit that Lightning made of one, or else the error itself."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        return error.__context__
    return error


def exit_code(error: BaseException) -> int:
    """What a shell gets of a command that ended so: 128 and the signal's number where one ended it, else 1."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 128 + signal.SIGTERM if isinstance(error, Terminated | InterruptedError) else 1


def describe(error: BaseException) -> str:
    """An error as one line, with what caused it where the error itself does not say."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Terminated):
        return "terminated"
    text, cause = str(error), error.__cause__
    if isinstance(error, InstantiationException) and isinstance(cause, ValueError | OSError):
        # Classes check their own settings. Where their words name no key, Hydra's place in the config does.
        place = re.search(r"full_key: (.+)", text)
        keyed = re.match(r"\w+(\.\w+)+\b|\w+=", str(cause))
        named = "" if place is None or keyed else f"{place[1]}: "
        return named + describe(cause)
    if cause is not None and isinstance(error, HydraException | OmegaConfBaseException) and str(cause) not in text:
        text = f"{text}: {cause}"
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.strerror}: {error.filename}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__
