"""Means that know what is missing, and how sure a mean is."""

from collections.abc import Iterable

import numpy as np

NUM_RESAMPLES = 1000


def mean_known(values: Iterable[float | None]) -> float | None:
    """The mean of what is not None; None of nothing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def bootstrap_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Percentile bootstrap interval (95 %, of 1,000 resamples) of the mean of values `[n]` (Efron 1979).

    None of a single value, which says nothing of how values spread.
    """
    if len(values) < 2:
        return None
    resampled = np.random.default_rng(0).choice(values, (NUM_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5)).tolist()
    return low, high


def bootstrap_ratio(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The same of the ratio of two means over the same n images, resampled as pairs."""
    pair = np.stack([own, other])
    drawn = np.random.default_rng(0).integers(pair.shape[1], size=(NUM_RESAMPLES, pair.shape[1]))
    numerator, denominator = pair[:, drawn].mean(axis=2)
    low, high = np.percentile(numerator / denominator, (2.5, 97.5)).tolist()
    return low, high
