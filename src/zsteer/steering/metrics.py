"""What steering did: gain, side effects, success, typicality. Pure functions of logits before and after.

Changes are counted in σ, the standard deviation of the same logit over unsteered samples, and signs are turned so that
what was asked for is positive. An attribute is present where its logit is above 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zsteer.data import attributes
from zsteer.statistics import mean_known

MIN_GROUP = 5  # a share of fewer images than this says nothing


@dataclass(frozen=True)
class Scored:
    """One classifier's view of a run: its attributes' names and logits `[n, K]` before, after and over samples."""

    names: Sequence[str]
    before: Float[Tensor, "n k"]
    after: Float[Tensor, "n k"]
    reference: Float[Tensor, "samples k"]

    @cached_property
    def change(self) -> Float[Tensor, "n k"]:
        """Δ / σ of each image and logit; 0 for a logit that never varies."""
        return (self.after - self.before).double() / sigma_of(self.reference)


def sigma_of(reference: Float[Tensor, "samples k"]) -> Float[Tensor, " k"]:
    """The standard deviation of each logit over unsteered samples; infinite where it never varies."""
    sigma = reference.double().std(dim=0)
    return sigma.where(sigma > 0, torch.inf)


def gain(scored: Scored, target: str, sign: float) -> float:
    """Mean change of the target's logit in σ."""
    return sign * scored.change[:, attributes.find(target, scored.names)].mean().item()


def agreement(classifier: Scored, judge: Scored, target: str) -> float:
    """ρ: the correlation of two classifiers' target logits over the same unsteered samples; 0 if one is constant."""
    one, other = (scored.reference[:, attributes.find(target, scored.names)] for scored in (classifier, judge))
    return correlation(one, other)


def correlation(one: Float[Tensor, " samples"], other: Float[Tensor, " samples"]) -> float:
    """Pearson's correlation; 0 if either is constant."""
    return torch.nan_to_num(torch.corrcoef(torch.stack([one, other]).double())[0, 1], nan=0.0).item()


def side_effects(judge: Scored, others: Sequence[str]) -> dict[str, float]:
    """Mean |Δ| / σ of each of the other attributes."""
    columns = [judge.names.index(name) for name in others]
    effects = judge.change[:, columns].abs().mean(dim=0)
    return dict(zip(others, effects.tolist(), strict=True))


def dependency_by_image(change: Float[Tensor, "n k"], others: Sequence[int]) -> Float[Tensor, " n"]:
    """Each image's attribute dependency: the mean of |Δ| / σ over the columns of the other attributes."""
    return change[:, others].abs().mean(dim=1)


def by_image(judge: Scored, target: str, sign: float, others: Sequence[str]) -> dict[str, Float[Tensor, " n"]]:
    """`gain_judge` and `attribute_dependency` of each image; their means over the images are the figures."""
    gains = sign * judge.change[:, attributes.find(target, judge.names)]
    columns = [judge.names.index(name) for name in others]
    return {"judge_gain": gains, "judge_dependency": dependency_by_image(judge.change, columns)}


def lacking(judge: Scored, target: str, sign: float) -> Bool[Tensor, " n"]:
    """The images without the wanted state at the start."""
    return (judge.before[:, attributes.find(target, judge.names)] > 0) != (sign > 0)


def success_rate(judge: Scored, target: str, sign: float) -> float | None:
    """Share of the images without the wanted state at the start that have it at the end; None if all had it."""
    lacks = lacking(judge, target, sign)
    after = (judge.after[:, attributes.find(target, judge.names)] > 0) == (sign > 0)
    return after[lacks].double().mean().item() if lacks.any() else None


def preservation_rate(judge: Scored, others: Sequence[str]) -> float | None:
    """Share of images whose state is unchanged, of those that had an attribute and those that had not alike.

    Averaged over the two groups (left out below 5 images), then over the attributes; None if no group is left.
    """
    rates = []
    for column in (judge.names.index(name) for name in others):
        before, after = judge.before[:, column] > 0, judge.after[:, column] > 0
        groups = [group for group in (before, ~before) if group.sum() >= MIN_GROUP]
        if groups:
            rates.append(sum((after == before)[group].double().mean().item() for group in groups) / len(groups))
    return mean_known(rates)


def noise_norm_percentile(noise: Float[Tensor, "n z_dim"]) -> float:
    """Mean percentile of ‖z‖² in the prior's χ² distribution with z_dim degrees of freedom; 50 is typical."""
    return norm_percentiles(noise).mean().item()


def norm_percentiles(noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, " n"]:
    """Each row's percentile of ‖z‖² in the prior."""
    noise = noise.double().cpu()
    half_dim = torch.tensor(noise.shape[1] / 2, dtype=torch.float64)
    return 100 * torch.special.gammainc(half_dim, noise.square().sum(dim=1) / 2)


class Judged(TypedDict):
    """The figures of a run that need a judge, in the order in which they are reported."""

    gain_judge: float | None
    agreement: float | None
    hacking_gap: float | None
    attribute_dependency: float | None
    attribute_dependency_max: float | None
    attribute_dependency_all: float | None
    success_rate: float | None
    preservation_rate: float | None


def judged_figures(target: str, sign: float, classifier: Scored, judge: Scored) -> Judged:
    """What a judge says of a run."""
    effects = side_effects(judge, attributes.others_of(target, judge.names))
    all_effects = side_effects(judge, attributes.others_of(target, judge.names, with_entailed=True))
    rho, confirmed = agreement(classifier, judge, target), gain(judge, target, sign)
    return Judged(
        gain_judge=confirmed,
        agreement=rho,
        hacking_gap=rho * gain(classifier, target, sign) - confirmed,
        attribute_dependency=mean_known(effects.values()),
        attribute_dependency_max=max(effects.values(), default=None),
        attribute_dependency_all=mean_known(all_effects.values()),
        success_rate=success_rate(judge, target, sign),
        preservation_rate=preservation_rate(judge, list(effects)),
    )


def figures(
    target: str, sign: float, noise: Float[Tensor, "n z_dim"], classifier: Scored, judge: Scored | None
) -> dict[str, float | None]:
    """Every figure of a run, in the order in which it is reported; those that need a judge are None without one."""
    judged = dict.fromkeys(Judged.__annotations__)
    if judge is not None:
        judged |= judged_figures(target, sign, classifier, judge)
    return {
        "gain_classifier": gain(classifier, target, sign),
        **judged,
        "noise_norm_percentile": noise_norm_percentile(noise),
    }
