"""Jobs of a sweep that differ in nothing but their seed, as one row."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from zsteer.statistics import bootstrap_interval
from zsteer.sweeps.jobs import Row

NOT_FIGURES = frozenset({"job", "state", "error", "seconds", "seed"})


def over_seeds(rows: Sequence[Row], given: Sequence[Mapping[str, str]]) -> list[Row]:
    """For each group of completed jobs that differ in their seed alone, means and 95 % intervals of their figures.

    Args:
        given: the words of each job, which say which belong together.

    Returns:
        A row for each group: its words, `num_seeds`, and of each figure the mean, `_low` and `_high` (see
        `bootstrap_interval`); no row where no two jobs belong together.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row, words in zip(rows, given, strict=True):
        if row["state"] == "completed":
            alike = tuple((key, word) for key, word in words.items() if key != "seed")
            groups.setdefault(alike, []).append(row)
    if all(len(group) < 2 for group in groups.values()):
        return []
    return [
        {**dict(alike), "num_seeds": len(group), **_means(group, {key for key, _ in alike})}
        for alike, group in groups.items()
    ]


def numbers_of(rows: Iterable[Row], known: set[str]) -> list[str]:
    """The figures that rows have as numbers, without what they were given and the intervals of others."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    ends = {f"{name}_{end}" for name in names for end in ("low", "high")}
    return [name for name in names if name not in NOT_FIGURES | known | ends]


def mean_and_interval(values: Sequence[int | float]) -> tuple[float, tuple[float, float] | None]:
    """The mean of some jobs' figure, and its interval if there are several jobs."""
    return float(np.mean(values)), bootstrap_interval(np.array(values, dtype=float))


def _means(group: Sequence[Row], known: set[str]) -> Row:
    means: Row = {}
    for name in numbers_of(group, known):
        mean, interval = mean_and_interval([row[name] for row in group if _is_number(row.get(name))])
        means[name] = mean
        if interval is not None:
            means[f"{name}_low"], means[f"{name}_high"] = interval
    return means


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
