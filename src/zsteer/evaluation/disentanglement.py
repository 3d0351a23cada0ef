"""How far each number of the noise means one thing: measures of codes against factors, pure functions of both.

A code is a number of the noise, a factor what a judge sees, in σ. Papers measure representations of given data; here
the codes are drawn and the factors are read from the images that the generator made of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

NUM_BINS = 20  # into which codes and continuous factors are cut, as the papers do
TRAINED = 0.8  # share of the images that a regressor learns from; it predicts the others
NUM_RESAMPLES = 20

Regressor = Callable[[], Any]  # makes one of scikit-learn's


@dataclass(frozen=True)
class Measures:
    """
    Args:
        dci_disentanglement: 1 − the entropy of what a code matters to, mean over the codes as much as they matter.
        dci_completeness: 1 − the entropy of what matters to a factor, mean over the factors.
        dci_informativeness: R² of the factors on images that the regressors have not seen, mean over the factors.
        mig: how much more a factor shares with one code than with any other, of its entropy, mean over the factors.
        sap: the same with a single code's R².
    """

    dci_disentanglement: float
    dci_completeness: float
    dci_informativeness: float
    mig: float
    sap: float


def measures(
    codes: Float[np.ndarray, "n d"], factors: Float[np.ndarray, "n k"], labels: np.ndarray, regressor: Regressor
) -> Measures:
    """All measures, of the factors that vary.

    Args:
        labels: `[k]`, which of the factors are logits, whose states are cut at 0.
    """
    vary = factors.std(axis=0) > 0
    factors, labels = factors[:, vary], labels[vary]
    importances, r2 = importances_of(codes, factors, regressor)
    disentanglement, completeness = dci(importances)
    return Measures(
        disentanglement,
        completeness,
        float(r2.mean()),
        mutual_information_gap(codes, states_of(factors, labels)),
        separated_predictability(codes, factors),
    )


def intervals(
    codes: Float[np.ndarray, "n d"], factors: Float[np.ndarray, "n k"], labels: np.ndarray, regressor: Regressor
) -> dict[str, float]:
    """Half of each measure's 95 % interval: 1.96 bootstrap standard errors (Efron 1979), of 20 resamples of the images.

    A resample repeats images, by which measures are a little biased; how they spread is what counts here.
    """
    random = np.random.default_rng(0)
    drawn = []
    for _ in tqdm(range(NUM_RESAMPLES), "Resampling", leave=False):
        rows = random.integers(len(codes), size=len(codes))
        drawn.append(vars(measures(codes[rows], factors[rows], labels, regressor)))
    return {name: 1.96 * float(np.std([one[name] for one in drawn], ddof=1)) for name in drawn[0]}


def importances_of(
    codes: Float[np.ndarray, "n d"], factors: Float[np.ndarray, "n k"], regressor: Regressor
) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]]:
    """What matters to each factor, by a regressor's `feature_importances_` or |`coef_`|, and its R² on other images."""
    num = round(TRAINED * len(codes))
    importances, r2 = [], []
    for factor in factors.T:
        fitted = regressor().fit(codes[:num], factor[:num])
        found = fitted.feature_importances_ if hasattr(fitted, "feature_importances_") else np.abs(fitted.coef_)
        importances.append(np.ravel(found))
        r2.append(fitted.score(codes[num:], factor[num:]))
    return np.stack(importances), np.array(r2)


def dci(importances: Float[np.ndarray, "k d"]) -> tuple[float, float]:
    """Disentanglement and completeness (Eastwood & Williams 2018, section 3).

    Disentanglement of code i is 1 − H_K(P_i), P_i being the shares of the factors in what the code matters to and the
    entropy's base the number of factors; completeness of a factor, likewise, of the codes' shares. The mean over the
    codes weighs each by its share of all that matters; a factor that nothing matters to counts as 0.
    """
    total = importances.sum()
    if total == 0:
        return 0.0, 0.0
    by_code = 1 - _entropies(importances.T)
    by_factor = np.where(importances.sum(axis=1) > 0, 1 - _entropies(importances), 0.0)
    return float((by_code * importances.sum(axis=0) / total).sum()), float(by_factor.mean())


def _entropies(rows: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """The entropy of each row's shares, to the base of their number."""
    shares = rows / np.maximum(rows.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    terms = np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0)
    return -terms.sum(axis=1) / np.log(max(2, rows.shape[1]))


def states_of(factors: Float[np.ndarray, "n k"], labels: np.ndarray) -> np.ndarray:
    """Which of two states a label has, and which of twenty equally frequent ones another factor."""
    return np.stack(
        [factor > 0 if label else bins_of(factor) for factor, label in zip(factors.T, labels, strict=True)], axis=1
    ).astype(int)


def bins_of(values: Float[np.ndarray, " n"]) -> np.ndarray:
    """Which of twenty equally frequent bins each value is in."""
    edges = np.quantile(values, np.linspace(0, 1, NUM_BINS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def mutual_information_gap(codes: Float[np.ndarray, "n d"], states: np.ndarray) -> float:
    """Mean over the factors of (I₁ − I₂) / H: what a factor shares with the best and the second best code (Chen et al.
    2018, eq. 6), of codes in twenty equally frequent bins. A factor that never varies is left out.
    """
    binned = np.stack([bins_of(code) for code in codes.T], axis=1)
    ones = np.eye(NUM_BINS, dtype=np.float32)[binned].reshape(len(codes), -1)
    gaps = []
    for state in states.T:
        values, inverse = np.unique(state, return_inverse=True)
        if len(values) < 2:
            continue
        joint = np.eye(len(values), dtype=np.float32)[inverse].T @ ones / len(codes)
        joint = joint.reshape(len(values), codes.shape[1], NUM_BINS).transpose(1, 0, 2).astype(float)
        by_state, by_bin = joint.sum(axis=2, keepdims=True), joint.sum(axis=1, keepdims=True)
        known = np.where(joint > 0, joint * np.log(np.where(joint > 0, joint, 1) / (by_state * by_bin + 1e-300)), 0)
        shared = np.sort(known.sum(axis=(1, 2)))
        rates = by_state[0, :, 0]
        entropy = -(rates * np.log(rates)).sum()
        gaps.append((shared[-1] - (shared[-2] if len(shared) > 1 else 0.0)) / entropy)
    return float(np.mean(gaps)) if gaps else 0.0


def separated_predictability(codes: Float[np.ndarray, "n d"], factors: Float[np.ndarray, "n k"]) -> float:
    """Mean over the factors of how much better the best code alone predicts it than the second best does, by R² of a
    line (Kumar et al. 2018, section 3).
    """
    r2 = np.sort(_correlations(codes, factors) ** 2, axis=1)
    return float((r2[:, -1] - (r2[:, -2] if r2.shape[1] > 1 else 0.0)).mean())


def _correlations(codes: Float[np.ndarray, "n d"], factors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "k d"]:
    one, other = (values - values.mean(axis=0) for values in (factors, codes))
    scale = np.outer(np.linalg.norm(one, axis=0), np.linalg.norm(other, axis=0))
    return one.T @ other / np.maximum(scale, np.finfo(float).tiny)
