"""A sweep's folder as one table and one picture."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zsteer.files import whole

Row = dict[str, Any]


def run(cfg: DictConfig) -> dict[str, int]:
    """Summarize the folder that `sweep` names."""
    if not isinstance(cfg.sweep, str):
        raise ValueError(f"sweep={cfg.sweep} must be a sweep's folder")
    return summarize(Path(cfg.sweep))


def summarize(folder: Path) -> dict[str, int]:
    """Write `sweep.csv` (a row per job) and `frontier.png` from the jobs' folders; say and return how many ended how.

    Raises:
        FileNotFoundError: the folder holds no job.
    """
    rows = read_jobs(folder)
    if not rows:
        raise FileNotFoundError(f"sweep={folder} holds no job: no folder in it has a status.json")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with whole(folder / "sweep.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    draw_frontier(folder / "frontier.png", rows)
    states = [row["state"] for row in rows]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    print(", ".join(f"{number} {state}" for state, number in counts.items()) + f": {folder / 'sweep.csv'}")
    return counts


def read_jobs(folder: Path) -> list[Row]:
    """One row per job, in the jobs' order: its name, state and error, its overrides, its settings and figures."""
    jobs = sorted((path.parent for path in folder.rglob("status.json")), key=_job_number)
    return [_read_job(folder, job) for job in jobs]


def _job_number(job: Path) -> tuple[int, str]:
    number = job.name.partition("_")[0]
    return (int(number) if number.isdigit() else -1, job.name)


def _read_job(folder: Path, job: Path) -> Row:
    status = json.loads((job / "status.json").read_text())
    overrides = job / ".hydra" / "overrides.yaml"
    given = OmegaConf.load(overrides) if overrides.is_file() else []
    metrics = job / "metrics.json"
    figures = json.loads(metrics.read_text()) if metrics.is_file() else {}
    row: Row = {
        "job": job.relative_to(folder).as_posix(),
        "state": status["state"],
        "error": status.get("error"),
        "seconds": status.get("seconds"),
    }
    row |= {key.lstrip("+~"): value for key, _, value in (str(override).partition("=") for override in given)}
    return row | {key: value for key, value in figures.items() if not isinstance(value, Mapping)}


def draw_frontier(path: Path, rows: Sequence[Row]) -> None:
    """Side effects against judged gain: one line per target and method, the penalty weight written along it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("gain_judge") is not None and row.get("attribute_dependency") is not None:
            lines.setdefault(f"{row['edit']} {row['target']}, {row['method']}", []).append(row)
    for name, points in lines.items():
        points.sort(key=lambda row: row["penalty_weight"])
        x, y = ([point[key] for point in points] for key in ("gain_judge", "attribute_dependency"))
        axes.plot(x, y, marker="o", label=name)
        for point, *at in zip(points, x, y, strict=True):
            text = f"λ={point['penalty_weight']:g}"
            axes.annotate(text, (at[0], at[1]), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel("judged gain (σ of the target's logit)")
    axes.set_ylabel("attribute dependency (mean |Δ|/σ of the others)")
    if lines:
        axes.legend(fontsize=8)
    else:
        axes.set_title("no job of this sweep has judged figures")
    axes.grid(alpha=0.3)
    with whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
