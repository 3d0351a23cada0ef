"""A comparison as tables, pictures and one page that opens from disk, with every trial's frames to scrub through."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from zsteer.evaluation.figures import DRAWN, Comparison, Row, means
from zsteer.evaluation.frontier import Point, draw_frontier
from zsteer.evaluation.trials import GAINS, TABLE_LEVELS, Level
from zsteer.files import atomic_write, write_table
from zsteer.pictures import Png, png_of, save_picture, sheet
from zsteer.statistics import bootstrap_interval, mean_known

FARTHEST = len(GAINS) - 1  # the level at which faces are shown
COLUMNS = {  # of a table behind the targets, where there is such a figure: means over the targets
    "versus": ("ratio", "{:.2f}"),
    "second_versus": ("ratio, second judge", "{:.2f}"),
    "way_to_drawn": ("way to the drawn edit", "{:.0%}"),
    "way_to_optimum": ("way to the optimum", "{:.0%}"),
}
TEMPLATE = Path(__file__).parent / "report.html"


def write(
    folder: Path, comparison: Comparison, rows: Sequence[Row], fingerprints: Mapping[str, str], codes: Png
) -> None:
    """Write `methods.csv`, `methods.md`, `frontier.png`, `rescoring.png`, `faces.png`, `traversals.png`, `report.html`.

    Args:
        rows: the figures, as `figures.figures` gives them.
        fingerprints: of the networks, by their roles, for the tables to name.
        codes: what the most active numbers of the noise do.
    """
    write_table(folder / "methods.csv", pd.DataFrame(rows))
    with atomic_write(folder / "methods.md") as temporary:
        temporary.write_text(tables(rows, fingerprints), encoding="utf-8")
    pictures = {"frontier": frontier(comparison), "rescoring": draw_rescoring(comparison)}
    for name, picture in pictures.items():
        save_picture(folder / f"{name}.png", picture)
    save_picture(folder / "faces.png", draw_faces(comparison))
    save_picture(folder / "traversals.png", codes)
    write_page(folder / "report.html", comparison, rows, pictures, codes, _named(fingerprints))


def tables(rows: Sequence[Row], fingerprints: Mapping[str, str]) -> str:
    """The dependency at each level, how the last images stand, and what the figures are of, in Markdown."""
    caption = f"{rows[0]['num_images']} images for each cell; {_named(fingerprints)}."
    parts = [*(markdown(rows, level) for level in TABLE_LEVELS), markdown_of_ends(rows), *agreement(rows), caption]
    return "\n\n".join(parts) + "\n"


def agreement(rows: Sequence[Row]) -> list[str]:
    """How well a second judge agrees with the first on each table, a line; none without one."""
    lines = []
    for level in TABLE_LEVELS if "second_versus" in rows[0] else ():
        own = [row for row in rows if row["level"] == level]
        both = [row for row in own if row["attribute_dependency"] and row["second_attribute_dependency"]]
        pair = np.array([[row["attribute_dependency"], row["second_attribute_dependency"]] for row in both])
        alike = f"{np.corrcoef(pair.T)[0, 1]:.2f}" if len(both) > 2 else "–"
        verdicts = [row["confirmed"] for row in own if row["confirmed"] is not None]
        lines.append(
            f"At {named_level(level)} the dependencies of {len(both)} cells by the two judges have the correlation "
            f"{alike}. Whether a contender's interval is below the first one's: {len(verdicts)} verdicts, "
            f"{verdicts.count(False)} of one judge only (*)."
        )
    return lines


def named_level(level: Level) -> str:
    """What tables call a level: +1 σ, or the flip."""
    return f"the {level}" if isinstance(level, str) else f"+{level:g} σ"


def _named(fingerprints: Mapping[str, str]) -> str:
    return ", ".join(f"{role} {digits}" for role, digits in fingerprints.items())


def write_page(
    path: Path,
    comparison: Comparison,
    rows: Sequence[Row],
    pictures: Mapping[str, Png],
    codes: Png,
    networks: str,
) -> None:
    """Write the page. Nothing in it is loaded from elsewhere: pictures are data URIs, and the script is its own.

    Args:
        rows: the figures, as `figures.figures` gives them.
        pictures: by title.
        codes: what the most active numbers of the noise do.
        networks: what made them.
    """
    figures: dict[tuple[str, str], dict[Level, Row]] = {}
    for row in rows:
        figures.setdefault((row["contender"], row["target"]), {})[row["level"]] = row
    trials = {
        target: [
            {
                "contender": name,
                "figures": figures[name, target],
                "frames": _uri(_sprite(trial.frames), "webp"),
                "gains": json.dumps([[round(gain, 2) for gain in moment] for moment in trial.gains.tolist()]),
                "arrived": (~trial.step[FARTHEST].isnan())[: trial.frames.shape[1]].tolist(),
            }
            for name, trial in ((name, comparison.trials[name, target]) for name in comparison.names)
        ]
        for target in comparison.targets
    }
    moments, _, _, height, width = next(iter(comparison.trials.values())).frames.shape
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        trials=trials,
        contenders=comparison.names,
        levels={level: named_level(level) for level in TABLE_LEVELS},
        num_images=rows[0]["num_images"],
        networks=networks,
        columns={figure: title for figure, (title, _) in COLUMNS.items() if figure in rows[0]},
        means={level: {figure: means(rows, level, figure) for figure in COLUMNS} for level in TABLE_LEVELS},
        agreement=agreement(rows),
        limits=[name for name in comparison.names if name not in comparison.contenders],
        figures=figures,
        pictures={title: _uri(picture.data, "png") for title, picture in pictures.items()},
        codes=_uri(codes.data, "png"),
        last=moments - 1,
        height=height,
        width=width,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _sprite(frames: UInt8[Tensor, "f m 3 h w"]) -> bytes:
    """All frames as one picture: images across, moments downwards."""
    moments, images, _, height, width = frames.shape
    picture = frames.permute(0, 3, 1, 4, 2).reshape(moments * height, images * width, 3)
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, format="WEBP", quality=85)
    return file.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def markdown(rows: Sequence[Row], level: Level) -> str:
    """The dependency of each contender for each target at a level, ± half its interval, with the share that arrived."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    cells: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["level"] == level:
            cells.setdefault(row["contender"], {})[row["target"]] = row
    columns = {figure: means(rows, level, figure) for figure in COLUMNS if figure in rows[0]}
    heads = [named_level(level), *targets, *(COLUMNS[figure][0] for figure in columns)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, own in cells.items():
        line = [_cell(own[target]) for target in targets]
        for figure, values in columns.items():
            value = values[name]
            line.append("–" if value is None else COLUMNS[figure][1].format(value))
        lines.append(f"| {name} | {' | '.join(line)} |")
    return "\n".join(lines)


def markdown_of_ends(rows: Sequence[Row]) -> str:
    """How each contender's last images stand, means over the targets; their KID over that of unedited samples."""
    lines = ["| at the end | success | preservation | KID, edited over unedited |", "|---|---|---|---|"]
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name and row["level"] == TABLE_LEVELS[0]]
        cells = []
        for figure in ("success_rate_at_end", "preservation_rate_at_end"):
            mean = mean_known(row[figure] for row in own)
            cells.append("–" if mean is None else f"{mean:.0%}")
        # Sums, since the distance of good samples can come out at zero.
        kids = [(row["kid_at_end"], row["kid_unedited"]) for row in own if row["kid_at_end"] is not None]
        edited, unedited = map(sum, zip(*kids, strict=True)) if kids else (0, 0)
        cells.append(f"{edited / unedited:.1f}" if unedited > 0 else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if row["attribute_dependency"] is None:
        return "never"
    mean, low, high = (row[f"attribute_dependency{end}"] for end in ("", "_low", "_high"))
    spread = "" if low is None else f" ± {(high - low) / 2:.2f}"
    mark = "*" if row.get("confirmed") is False else ""
    return f"{mean:.2f}{spread}{mark} ({row['arrived']:.0%})"


def frontier(comparison: Comparison) -> Png:
    """Attribute dependency against judged gain: a line per contender, means over targets, with bootstrap intervals.

    A point stands where at least half of all images, over the targets, have reached the gain.
    """
    lines: dict[str, list[Point]] = {}
    for name in comparison.names:
        for number, level in enumerate(GAINS):
            each = torch.cat([comparison.dependency((name, target), number) for target in comparison.targets])
            known = each[~each.isnan()].numpy()
            if len(known) >= len(each) / 2:
                mean = known.mean().item()
                point = Point(level, mean, bootstrap_interval(known) or (mean, mean))
                lines.setdefault(name, []).append(point)
    first, last = comparison.contenders[0], comparison.contenders[-1]
    return draw_frontier(lines, bold=(first, last), black=last)


def draw_faces(comparison: Comparison) -> Png:
    """For each target the faces at the start and, for each contender, where they reach the last level.

    A red frame is around those that never did, as they are at the end.
    """
    lines = []
    for target in comparison.targets:
        trials = {name: comparison.trials[name, target] for name in comparison.names}
        for name, trial in trials.items():
            if name in (comparison.contenders[0], DRAWN):  # where all that follow start, and the drawn faces
                title = target.replace("+", "+\n") if name != DRAWN else "drawn"
                lines.append((title, [face.permute(1, 2, 0).numpy() for face in trial.frames[0]]))
            faces = trial.frames[-1].permute(0, 2, 3, 1).numpy().copy()
            never = trial.step[FARTHEST].isnan()[: len(faces)].numpy()
            inside = np.zeros(faces.shape[1:3], dtype=bool)
            inside[2:-2, 2:-2] = True
            faces[never[:, None, None] & ~inside] = (220, 0, 0)
            lines.append((name, list(faces)))
    return sheet(lines)


def draw_rescoring(comparison: Comparison) -> Png:
    """The re-scoring matrix (Shen et al. 2020): the judge's mean change of every attribute where a target gained 1 σ.

    Targets downwards, attributes across; the first contender and the last.
    """
    from matplotlib.figure import Figure  # here, because that takes a second

    names = list(dict.fromkeys((comparison.contenders[0], comparison.contenders[-1])))
    figure = Figure(figsize=(12, 0.6 + 3.4 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 1, squeeze=False)
    number = GAINS.index(1.0)
    image = None
    for axes, name in zip(grid[:, 0], names, strict=True):
        matrix = torch.stack(
            [comparison.trials[name, target].judge[number].nanmean(dim=0) for target in comparison.targets]
        )
        image = axes.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axes.set_yticks(range(len(comparison.targets)), comparison.targets, fontsize=7)
        axes.set_xticks(range(matrix.shape[1]), comparison.classes[1], fontsize=6, rotation=90)
        axes.set_title(f"{name}: mean change in σ at +1 σ of the target", fontsize=9)
    assert image is not None
    figure.colorbar(image, ax=grid[:, 0], shrink=0.6)
    return png_of(figure)
