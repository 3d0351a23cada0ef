"""How a run stands: its `status.json`, and what went wrong as one line."""

import errno
import re
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException, MissingConfigException
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


# The disk's, or one's share of it, is full; or the file has the size that files may have.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# What a user can put right, or did: reported in a line, without a traceback on the screen.
USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException, YAMLError, KeyboardInterrupt, Terminated)


# Configs of the plugins that only an extra installs.
OF_EXTRAS = {"sweeps": r"hydra/(sweeper/(optuna|sampler)|launcher/submitit)", "ray": r"hydra/launcher/ray"}


@dataclass
class Call:
    """What one call of a command ran: whether it got to a job, its folder and its sweep's, a line for each failure."""

    started: bool = False
    folder: Path | None = None
    sweep: Path | None = None
    resumed: bool = False
    failures: list[str] = field(default_factory=list)


def write_status(
    folder: Path, state: str, seconds: float, provenance: Mapping[str, Any] | None = None, **more: str
) -> None:
    """Write a job's `status.json`, with its provenance where that is known."""
    if is_main_process():
        known = {"provenance": dict(provenance)} if provenance else {}
        write_json(folder / "status.json", {"state": state, **more, "seconds": round(seconds, 3), **known})


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


def write_failure(
    folder: Path, error: BaseException, seconds: float, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a failed job's `status.json`, with its traceback."""
    trace = "".join(traceback.format_exception(error))
    write_status(folder, "failed", seconds, provenance, error=describe(error), traceback=trace)


@contextmanager
def recorded(folder: Path, provenance: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Keep a job's `status.json` while the block runs; a failure is recorded and passed on.

    Args:
        provenance: what the run was made of; what the block adds to it is written at its end.
    """
    started = time.monotonic()
    write_status(folder, "running", 0.0, provenance)
    try:
        yield
    except BaseException as error:
        cause = memory_told(cause_of(error, folder))
        with suppress(OSError):  # a full disk has no room for that either
            write_failure(folder, cause, time.monotonic() - started, provenance)
        if cause is not error:
            raise cause from None
        raise
    write_status(folder, "completed", time.monotonic() - started, provenance)


def cause_of(error: BaseException, folder: Path) -> BaseException:
    """The error, or what is behind it: the interrupt that Lightning made an exit of, the folder of a nameless file."""
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None:  # of TensorBoard's, of Hydra's
        return OSError(error.errno, error.strerror, str(folder))
    return interrupt_of(error)


def interrupt_of(error: BaseException) -> BaseException:
    """The interrupt behind an exit that Lightning made of one, or else the error itself."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        return error.__context__
    return error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says so; torch has a class for a GPU's only."""
    words = ("out of memory", "allocate memory", "alloc_failed")
    told = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    return told or isinstance(error, MemoryError)


def memory_told(error: BaseException) -> BaseException:
    """The error, or one that a user can put right where memory has run out."""
    if not out_of_memory(error):
        return error
    told = ValueError(f"out of memory: {describe(error)}; take fewer images at a time, or smaller networks")
    told.__cause__ = error
    return told


def exit_code(error: BaseException) -> int:
    """What a shell gets of a command that ended so: 128 and the signal's number where one ended it, else 1."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 128 + signal.SIGTERM if isinstance(error, Terminated | InterruptedError) else 1


def describe(error: BaseException) -> str:
    """An error as one line, with what caused it where the error itself does not say."""
    if isinstance(error, KeyboardInterrupt):
        return "; ".join(("interrupted", *map(str, error.args)))
    if isinstance(error, Terminated):
        return "terminated"
    if isinstance(error, MissingConfigException):
        for extra, configs in OF_EXTRAS.items():
            if re.match(configs, name := error.missing_cfg_file or ""):
                return f"{name} comes with an extra: pip install 'zsteer[{extra}]', or '.[{extra}]' in a clone"
    text, cause = str(error), error.__cause__
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text)  # what a resolver of ours says is enough
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
