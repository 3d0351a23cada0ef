"""A sweep's folder as a table, pictures and a run in TensorBoard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from zsteer.evaluation.frontier import Point, draw_frontier
from zsteer.events import Events
from zsteer.files import HISTORY, write_table
from zsteer.pictures import Png, save_picture, sheet
from zsteer.statistics import bootstrap_interval
from zsteer.sweeps.curves import draw_curves
from zsteer.sweeps.jobs import Row, given_to, read_jobs
from zsteer.sweeps.seeds import mean_and_interval, over_seeds

# The two figures of the frontier, and where a job keeps them for each image.
BY_IMAGE = {"gain_judge": "judge_gain", "attribute_dependency": "judge_dependency"}
FIGURES = tuple(BY_IMAGE)

LINE = ("edit", "target", "method", "penalty_weight")  # what a line of the pictures is named by or runs along


@dataclass(frozen=True)
class Summary:
    """A sweep's jobs: how many ended how, a row for each of them, and where the table is."""

    metrics: dict[str, int]
    table: pd.DataFrame
    file: Path

    def report(self, folder: Path) -> str:
        """How many jobs ended how."""
        counts = ", ".join(f"{number} {state}" for state, number in self.metrics.items())
        return f"{counts}: {self.file}"


def summarize(folder: Path) -> Summary:
    """Make a sweep's table and pictures from the jobs' folders.

    `sweep.csv` has a row per job, and `seeds.csv` one for jobs that differ in their seed alone, if any do. Of steering,
    `frontier.png` and `sheet.png`, of training, `curves.png` are also TensorBoard's run `sweep`.

    Raises:
        FileNotFoundError: the folder holds no job.
    """
    rows = read_jobs(folder)
    if not rows:
        raise FileNotFoundError(f"sweep={folder} holds no job: no folder in it has a status.json")
    rows = [row | intervals(folder, row) for row in rows]
    given = [given_to(folder / row["job"]) for row in rows]
    lines = lines_of(folder, rows)
    table = pd.DataFrame(rows, dtype=object)  # as they are: numbers of images and seeds stay whole where a job has none
    write_table(folder / "sweep.csv", table)
    if seeds := over_seeds(rows, given):
        write_table(folder / "seeds.csv", pd.DataFrame(seeds, dtype=object))
    if lines:
        pictures = {"frontier": frontier(lines), "sheet": draw_sheet(folder, lines)}
    else:
        pictures = {"curves": draw_curves(rows, given)}
    drawn = {name: picture for name, picture in pictures.items() if picture is not None}
    for name, picture in drawn.items():
        save_picture(folder / f"{name}.png", picture)
    if drawn:
        write_events(folder / "sweep", {f"sweep/{name}": picture for name, picture in drawn.items()})
    states = [row["state"] for row in rows]
    return Summary({state: states.count(state) for state in dict.fromkeys(states)}, table, folder / "sweep.csv")


def failures(folder: Path) -> list[str]:
    """A line for each job that has failed."""
    return [f"{row['job']}: {row['error']}" for row in read_jobs(folder) if row["state"] == "failed"]


def lines_of(folder: Path, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The jobs that got as far as their figures, by edit, target and method.

    Where some of these share a penalty weight too, as in a grid, what else they were given tells the lines apart, but
    for the seed; a search draws a weight of its own for each job, and is one line.
    """
    known = [row for row in rows if all(row.get(key) is not None for key in LINE)]
    known = [row for row in known if not isinstance(row["penalty_weight"], str)]  # as it was asked for, not run
    given = [
        {key: word for key, word in given_to(folder / row["job"]).items() if key not in (*LINE, "seed")}
        for row in known
    ]
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
    path = folder / row["job"] / HISTORY
    if row.get("gain_judge") is None or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            known = set(file.keys())
            parts = {figure: file.get_tensor(name) for figure, name in BY_IMAGE.items() if name in known}
    except (SafetensorError, OSError):  # damaged: its figures stand without intervals
        return {}
    bounds = {}
    for figure, values in parts.items():
        if (interval := bootstrap_interval(values)) is not None:
            bounds |= {f"{figure}_low": interval[0], f"{figure}_high": interval[1]}
    return bounds


def frontier(lines: Mapping[str, Sequence[Row]]) -> Png:
    """Side effects against judged gain, with intervals: the penalty along each line.

    Jobs that differ in their seed are one point, at their mean; its interval is that of the seeds.
    """
    points: dict[str, list[Point]] = {}
    for name, rows in lines.items():
        judged = [row for row in rows if all(row.get(figure) is not None for figure in FIGURES)]
        for weight in sorted({row["penalty_weight"] for row in judged}):
            alike = [row for row in judged if row["penalty_weight"] == weight]
            (gain, gains), (dependency, dependencies) = (_mean_of(alike, figure) for figure in FIGURES)
            points.setdefault(name, []).append(Point(gain, dependency, dependencies, gains, f"λ={weight:g}"))
    return draw_frontier(points, title="" if points else "no job of this sweep has judged figures")


def _mean_of(rows: Sequence[Row], figure: str) -> tuple[float, tuple[float, float]]:
    """A figure's mean over jobs and its interval; of a single job the interval over its images."""
    mean, interval = mean_and_interval([row[figure] for row in rows])
    return mean, interval or (rows[0].get(f"{figure}_low", mean), rows[0].get(f"{figure}_high", mean))


def draw_sheet(folder: Path, lines: Mapping[str, Sequence[Row]]) -> Png | None:
    """The first image of each job of the first seed, at the start and the end: a row for each line, weights across."""
    cells: dict[str, dict[float, np.ndarray]] = {}
    for name, rows in lines.items():
        for row in rows:
            path = folder / row["job"] / HISTORY
            if row["state"] == "completed" and (image := _first_image(path)) is not None:
                cells.setdefault(name, {}).setdefault(row["penalty_weight"], image)
    if not cells:
        return None
    weights = sorted({weight for images in cells.values() for weight in images})
    shown = [(name.replace(", ", "\n"), [images.get(weight) for weight in weights]) for name, images in cells.items()]
    return sheet(shown, [f"λ={weight:g}" for weight in weights])


def _first_image(history: Path) -> np.ndarray | None:
    """The first image of a job at the start and the end, beside each other: uint8 `[h, 2w, 3]`; None if damaged."""
    try:
        with safe_open(history, framework="numpy") as file:
            return np.concatenate(list(file.get_tensor("first_image")), axis=2).transpose(1, 2, 0)
    except (SafetensorError, OSError):
        return None


def write_events(folder: Path, pictures: Mapping[str, Png]) -> None:
    """The sweep's own run in TensorBoard: its pictures, beside the jobs' runs and their HParams rows."""
    events = Events()
    for tag, picture in pictures.items():
        events.image(tag, picture, 0)
    events.save(folder)
