"""A sweep's folder as a table, pictures and a run in TensorBoard."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open

from zsteer.files import whole
from zsteer.pictures import Png, plotting, png_of, save_picture, sheet

Row = dict[str, Any]

# The two figures of the frontier, and where a job keeps them for each image.
BY_IMAGE = {"gain_judge": "judge_gain", "attribute_dependency": "judge_dependency"}
FIGURES = tuple(BY_IMAGE)

LINE = ("edit", "target", "method", "penalty_weight")  # what a line of the pictures is named by or runs along


def run(cfg: DictConfig) -> dict[str, int]:
    """Summarize the folder that `sweep` names."""
    if not isinstance(cfg.sweep, str):
        raise ValueError(f"sweep={cfg.sweep} must be a sweep's folder")
    return summarize(Path(cfg.sweep))


def summarize(folder: Path) -> dict[str, int]:
    """Make a sweep's table and pictures from the jobs' folders; say and return how many jobs ended how.

    `sweep.csv` has a row per job; `frontier.png` and `sheet.png` are also TensorBoard's run `sweep`.

    Raises:
        FileNotFoundError: the folder holds no job.
    """
    rows = read_jobs(folder)
    if not rows:
        raise FileNotFoundError(f"sweep={folder} holds no job: no folder in it has a status.json")
    rows = [row | intervals(folder, row) for row in rows]
    lines = lines_of(folder, rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with whole(folder / "sweep.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    pictures = {"frontier": draw_frontier(lines), "sheet": draw_sheet(folder, lines)}
    drawn = {name: picture for name, picture in pictures.items() if picture is not None}
    for name, picture in drawn.items():
        save_picture(folder / f"{name}.png", picture)
    write_events(folder / "sweep", {f"sweep/{name}": picture for name, picture in drawn.items()})
    states = [row["state"] for row in rows]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    print(", ".join(f"{number} {state}" for state, number in counts.items()) + f": {folder / 'sweep.csv'}")
    return counts


def failures(folder: Path) -> list[str]:
    """A line for each job that has failed."""
    return [f"{row['job']}: {row['error']}" for row in read_jobs(folder) if row["state"] == "failed"]


def read_jobs(folder: Path) -> list[Row]:
    """One row per job, in the jobs' order: its name, state and error, its overrides, its settings and figures."""
    jobs = sorted((path.parent for path in folder.rglob("status.json")), key=_job_number)
    return [_read_job(folder, job) for job in jobs]


def _job_number(job: Path) -> tuple[int, str]:
    number = job.name.partition("_")[0]
    return (int(number) if number.isdigit() else -1, job.name)


def _read_job(folder: Path, job: Path) -> Row:
    status = json.loads((job / "status.json").read_text())
    metrics = job / "metrics.json"
    figures = json.loads(metrics.read_text()) if metrics.is_file() else {}
    row: Row = {
        "job": job.relative_to(folder).as_posix(),
        "state": status["state"],
        "error": status.get("error"),
        "seconds": status.get("seconds"),
    }
    return row | given_to(job) | {key: value for key, value in figures.items() if not isinstance(value, Mapping)}


def given_to(job: Path) -> dict[str, str]:
    """What a job was given on the command line."""
    overrides = job / ".hydra" / "overrides.yaml"
    given = OmegaConf.load(overrides) if overrides.is_file() else []
    return {key.lstrip("+~"): value for key, _, value in (str(override).partition("=") for override in given)}


def lines_of(folder: Path, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The jobs that got as far as their figures, by edit, target and method.

    Where some of these share a penalty weight too, as in a grid, what else they were given tells the lines apart; a
    search draws a weight of its own for each job, and is one line.
    """
    known = [row for row in rows if row.get("penalty_weight") is not None and "method" in row and "edit" in row]
    given = [{key: word for key, word in given_to(folder / row["job"]).items() if key not in LINE} for row in known]
    varying = [
        key
        for key in dict.fromkeys(key for words in given for key in words)
        if len({words.get(key) for words in given}) > 1
    ]
    if len({tuple(row[key] for key in LINE) for row in known}) == len(known):
        varying = []
    lines: dict[str, list[Row]] = {}
    for row, words in zip(known, given, strict=True):
        more = (f", {key}={words[key]}" for key in varying if key in words)
        lines.setdefault(f"{row['edit']} {row['target']}, {row['method']}{''.join(more)}", []).append(row)
    return lines


def intervals(folder: Path, row: Row) -> Row:
    """Bootstrap intervals of a job's judged gain and dependency."""
    path = folder / row["job"] / "history.safetensors"
    if row.get("gain_judge") is None or not path.is_file():
        return {}
    with safe_open(path, framework="numpy") as file:
        known = set(file.keys())
        parts = {figure: file.get_tensor(name) for figure, name in BY_IMAGE.items() if name in known}
    bounds = {}
    for figure, values in parts.items():
        low, high = interval(values)
        bounds |= {f"{figure}_low": low, f"{figure}_high": high}
    return bounds


def interval(values: np.ndarray) -> tuple[float, float]:
    """Bootstrap interval (95 %, of 1,000 resamples) of the mean over images."""
    resampled = np.random.default_rng(0).choice(values, (1000, len(values))).mean(axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5)).tolist()
    return low, high


def draw_frontier(lines: Mapping[str, Sequence[Row]]) -> Png:
    """Side effects against judged gain, with intervals: the penalty along each line."""
    pyplot = plotting()
    figure, axes = pyplot.subplots(figsize=(8, 5.5), dpi=120, layout="constrained")
    judged = {
        name: [row for row in rows if all(row.get(key) is not None for key in FIGURES)] for name, rows in lines.items()
    }
    lines = {name: rows for name, rows in judged.items() if rows}
    colours = pyplot.get_cmap("tab10" if len(lines) <= 10 else "gist_ncar")
    for number, (name, points) in enumerate(lines.items()):
        points = sorted(points, key=lambda row: row["penalty_weight"])
        x, y = ([point[key] for point in points] for key in FIGURES)
        colour = colours(number if len(lines) <= 10 else 0.95 * number / len(lines))
        errors = [
            [[abs(p[key] - p.get(f"{key}_{end}", p[key])) for p in points] for end in ("low", "high")]
            for key in FIGURES
        ]
        axes.errorbar(
            x, y, xerr=errors[0], yerr=errors[1], marker="o", markersize=4, color=colour, elinewidth=0.5, label=name
        )
        if len(lines) <= 10:
            for point, *at in zip(points, x, y, strict=True):
                text = f"λ={point['penalty_weight']:g}"
                axes.annotate(text, (at[0], at[1]), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel("judged gain (σ of the target's logit)")
    axes.set_ylabel("attribute dependency (mean |Δ|/σ of the others)")
    if lines:
        figure.legend(loc="outside right upper", fontsize=8 if len(lines) <= 10 else 5)
    else:
        axes.set_title("no job of this sweep has judged figures")
    axes.grid(alpha=0.3)
    return png_of(figure)


def draw_sheet(folder: Path, lines: Mapping[str, Sequence[Row]]) -> Png | None:
    """The first image of each job, at the start and the end: a row for each line, penalty weights across."""
    cells: dict[str, dict[float, np.ndarray]] = {}
    for name, rows in lines.items():
        for row in rows:
            path = folder / row["job"] / "history.safetensors"
            if row["state"] == "completed" and path.is_file():
                cells.setdefault(name, {})[row["penalty_weight"]] = _first_image(path)
    if not cells:
        return None
    weights = sorted({weight for images in cells.values() for weight in images})
    shown = [(name.replace(", ", "\n"), [images.get(weight) for weight in weights]) for name, images in cells.items()]
    return sheet(shown, [f"λ={weight:g}" for weight in weights])


def _first_image(history: Path) -> np.ndarray:
    """The first image of a job at the start and the end, beside each other: uint8 `[h, 2w, 3]`."""
    with safe_open(history, framework="numpy") as file:
        return np.concatenate(list(file.get_tensor("first_image")), axis=2).transpose(1, 2, 0)


def write_events(folder: Path, pictures: Mapping[str, Png]) -> None:
    """The sweep's own run in TensorBoard: its pictures, beside the jobs' runs and their HParams rows."""
    from zsteer.events import Events

    for stale in folder.glob("events.out.tfevents.*"):
        stale.unlink()
    events = Events()
    for tag, picture in pictures.items():
        events.image(tag, picture, 0)
    events.save(folder)
