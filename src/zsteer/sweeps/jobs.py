"""What a sweep's folder says of each of its jobs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open

from zsteer.files import HISTORY, LAST_CHECKPOINT, read_json
from zsteer.runs import read_config
from zsteer.status import read_status

Row = dict[str, Any]


def read_jobs(folder: Path) -> list[Row]:
    """One row per job, in the jobs' order: its name, state and error, its overrides, its settings and figures."""
    jobs = sorted((path.parent for path in folder.rglob("status.json")), key=_number)
    return [_read_job(folder, job) for job in jobs]


def _number(job: Path) -> tuple[int, str]:
    number = job.name.partition("_")[0]
    return (int(number) if number.isdigit() else -1, job.name)


def _read_job(folder: Path, job: Path) -> Row:
    status = state_of(job)
    figures = read_json(job / "metrics.json") if (job / "metrics.json").is_file() else {}
    row: Row = {
        "job": job.relative_to(folder).as_posix(),
        "state": status["state"],
        "error": status.get("error"),
        "seconds": status.get("seconds"),
    }
    known = figures.items() if isinstance(figures, Mapping) else ()
    return row | given_to(job) | {key: value for key, value in known if not isinstance(value, Mapping)}


def state_of(job: Path) -> dict[str, Any]:
    """A job's status; a failure that names the file where one of its files is damaged."""
    metrics, history = job / "metrics.json", job / HISTORY
    if metrics.is_file() and not isinstance(read_json(metrics), Mapping):
        return _damaged(metrics)
    try:
        if history.is_file():
            safe_open(history, framework="numpy")
    except SafetensorError:
        return _damaged(history)
    return read_status(job)


def _damaged(path: Path) -> dict[str, Any]:
    return {"state": "failed", "error": f"{path} is damaged; run the job again"}


def words_of(job: Path) -> list[str] | None:
    """The words of a job, as its folder has them; None if it has none.

    Without that of its own checkpoint, from which it has gone on.
    """
    overrides = job / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        return None
    words: Any = OmegaConf.to_container(read_config(overrides), resolve=False)
    own = f"{job.name}/{LAST_CHECKPOINT.as_posix()}"
    return [str(word) for word in words if not (str(word).startswith("ckpt_path=") and own in str(word))]


def given_to(job: Path) -> dict[str, str]:
    """What a job was given on the command line."""
    return {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in words_of(job) or ())}
