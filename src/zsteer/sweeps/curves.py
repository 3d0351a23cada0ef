"""A training sweep's figures against what was swept."""

from collections.abc import Mapping, Sequence

from zsteer.pictures import Png, png_of
from zsteer.statistics import mean_known
from zsteer.sweeps.jobs import Row
from zsteer.sweeps.seeds import numbers_of

MAX_FIGURES = 8


def draw_curves(rows: Sequence[Row], given: Sequence[Mapping[str, str]]) -> Png | None:
    """A row of axes for each figure and a column for each swept key: every job a point, the means a line.

    Args:
        given: the words of each job.

    Returns:
        None where nothing was swept, or no job has figures.
    """
    keys = dict.fromkeys(key for words in given for key in words)
    swept = [key for key in keys if key != "seed" and len({words.get(key) for words in given}) > 1]
    figures = [name for name in numbers_of(rows, set(keys)) if name != "num_images"][:MAX_FIGURES]
    if not swept or not figures:
        return None
    from matplotlib.figure import Figure  # here, because that takes a second

    figure = Figure(figsize=(1 + 3.2 * len(swept), 0.6 + 2.2 * len(figures)), dpi=110, layout="constrained")
    axes = figure.subplots(len(figures), len(swept), squeeze=False)
    for column, key in enumerate(swept):
        places, ticks = _places([words.get(key, "default") for words in given])
        for line, name in enumerate(figures):
            axis = axes[line, column]
            known = [(place, row[name]) for place, row in zip(places, rows, strict=True) if row.get(name) is not None]
            axis.scatter(*zip(*known, strict=True), s=14, alpha=0.6)
            distinct = sorted({place for place, _ in known})
            axis.plot(distinct, [mean_known(value for place, value in known if place == at) for at in distinct])
            axis.grid(alpha=0.3)
            if ticks:
                axis.set_xticks(range(len(ticks)), ticks, fontsize=7)
            if column == 0:
                axis.set_ylabel(name.replace("/", "/\n", 1), fontsize=7)
        axes[-1, column].set_xlabel(key, fontsize=8)
    return png_of(figure)


def _places(words: Sequence[str]) -> tuple[list[float], list[str]]:
    """Where on an axis words stand: numbers at their value, others in a row, with their labels."""
    try:
        return [float(word) for word in words], []
    except ValueError:
        labels = list(dict.fromkeys(words))
        return [float(labels.index(word)) for word in words], labels
