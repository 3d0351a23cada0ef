"""The figures of a comparison: what else had changed once the judge saw the target change so far?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor, nn
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.data.attributes import EDITS
from zsteer.data.faces import FaceData, scale
from zsteer.evaluation.trials import BATCH_SIZE, LEVELS, TABLE_LEVELS, Key, Trial, Trials
from zsteer.gan.fidelity import kernel_distance
from zsteer.networks.inference import pooled_features
from zsteer.statistics import bootstrap_interval, bootstrap_ratio, mean_known
from zsteer.steering import metrics
from zsteer.steering.reference import reference_noise

MIN_IMAGES = 16  # of which a kernel distance says anything
Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """All trials of an evaluation, and what their figures are counted by.

    `references` are the steering classifier's and the judge's logits over unsteered samples, `classes` the classifier's
    names and the judge's; `signs` is +1 for each contender that adds, −1 for one that removes.
    """

    trials: dict[Key, Trial]
    signs: dict[str, float]
    references: Sequence[Tensor]
    classes: tuple[Sequence[str], Sequence[str]]

    @classmethod
    def of(cls, trials: Trials, jobs: Mapping[str, Sequence[DictConfig]]) -> "Comparison":
        """What some trials of contenders' jobs amount to."""
        session = trials.session
        assert session.judge is not None
        signs = {name: EDITS[own[0].edit] for name, own in jobs.items()}
        return cls(trials.held, signs, session.references, (session.networks.classifier.names, session.judge.names))

    @property
    def contenders(self) -> list[str]:
        """Their names, in the config's order; the first is what the others are compared with."""
        return list(dict.fromkeys(name for name, _ in self.trials))

    @property
    def targets(self) -> list[str]:
        """The attributes that they were steered towards."""
        return list(dict.fromkeys(target for _, target in self.trials))

    def others(self, target: str) -> list[int]:
        """The judge's columns of what counts as a side effect."""
        return [self.classes[1].index(name) for name in metrics.others_of(target, self.classes[1])]

    def dependency(self, key: Key, level: int) -> Float[Tensor, " n"]:
        """Attribute dependency of each image at a level, NaN if it never reached it."""
        return metrics.dependency_by_image(self.trials[key].judge[level], self.others(key[1]))

    def hacking_gap(self, key: Key, level: int) -> Float[Tensor, " n"]:
        """What the classifier gained at a level beyond what a judge that agrees to ρ would see."""
        columns = [attributes.find(key[1], names) for names in self.classes]
        pair = [logits[:, column] for logits, column in zip(self.references, columns, strict=True)]
        return metrics.correlation(*pair) * self.trials[key].seen[level] - LEVELS[level]


def figures(comparison: Comparison, kernel_distances: dict[Key, tuple[float, float]]) -> list[Row]:
    """A row for each level, contender and target.

    `versus` is the contender's dependency over the first one's, over the images that reach the level with both;
    `kid_at_end` is the kernel distance of its last images, and `kid_unedited` what that is to be compared with.
    """
    rows = []
    for level in TABLE_LEVELS:
        number = LEVELS.index(level)
        for key, trial in comparison.trials.items():
            name, target = key
            dependency, gap = comparison.dependency(key, number), comparison.hacking_gap(key, number)
            arrived = ~dependency.isnan()
            scored = metrics.Scored(comparison.classes[1], trial.start, trial.end, comparison.references[1])
            others = metrics.others_of(target, comparison.classes[1])
            effects = trial.judge[number][arrived][:, comparison.others(target)].abs().mean(dim=0)
            row: Row = {"level": level, "contender": name, "target": target}
            row |= {"num_images": len(arrived), "arrived": arrived.double().mean().item()}
            row |= _mean_interval("step", trial.step[number])
            row |= _mean_interval("attribute_dependency", dependency)
            row["attribute_dependency_max"] = effects.max().item() if arrived.any() else None
            row |= _versus(dependency, comparison.dependency((comparison.contenders[0], target), number))
            row |= _mean_interval("hacking_gap", gap)
            row |= _mean_interval("identity_distance", trial.identity[TABLE_LEVELS.index(level)])
            row["noise_norm_percentile"] = (
                metrics.noise_norm_percentile(trial.noise[number][arrived]) if arrived.any() else None
            )
            row["success_rate_at_end"] = metrics.success_rate(scored, target, comparison.signs[name])
            row["preservation_rate_at_end"] = metrics.preservation_rate(scored, others)
            row["kid_at_end"], row["kid_unedited"] = kernel_distances.get(key, (None, None))
            rows.append(row)
    return rows


def ratios(rows: Sequence[Row], level: float) -> dict[str, float | None]:
    """Each contender's mean of `versus` over the targets at a level."""
    versus: dict[str, list[float | None]] = {row["contender"]: [] for row in rows}
    for row in rows:
        if row["level"] == level:
            versus[row["contender"]].append(row["versus"])
    return {name: mean_known(values) for name, values in versus.items()}


def _mean_interval(name: str, values: Float[Tensor, " n"]) -> Row:
    known = values[~values.isnan()].numpy()
    if not len(known):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = bootstrap_interval(known) or (None, None)
    return {name: known.mean().item(), f"{name}_low": low, f"{name}_high": high}


def _versus(dependency: Float[Tensor, " n"], first: Float[Tensor, " n"]) -> Row:
    both = ~(dependency.isnan() | first.isnan())
    if not both.any():
        return dict.fromkeys(("versus", "versus_low", "versus_high", "disjoint"))
    own, firsts = dependency[both].numpy(), first[both].numpy()
    ends, first_ends, (low, high) = bootstrap_interval(own), bootstrap_interval(firsts), bootstrap_ratio(own, firsts)
    return {
        "versus": (own.mean() / firsts.mean()).item(),
        "versus_low": low,
        "versus_high": high,
        "disjoint": ends[1] < first_ends[0] if ends and first_ends else None,
    }


@torch.no_grad()
def kernel_distances(
    comparison: Comparison, data: FaceData, split: str, generator: nn.Module, judge: nn.Module
) -> dict[Key, tuple[float, float]]:
    """KID in the judge's features against data that have the attribute: of each contender's last images, and of all
    unedited samples in which the judge sees the attribute.

    The estimate has no bias, so that their numbers need not be equal. A target that the data have no label of, or of
    which there are too few images, is left out, and so is a contender that takes the attribute away.
    """
    shared = [target for target in comparison.targets if target in data.names]
    features: dict[str, list[Tensor]] = {target: [] for target in shared}
    for images, targets in tqdm(data.split_batches(split, BATCH_SIZE), desc="Looking at the data"):
        seen, _ = pooled_features(judge, scale(images))
        for target in shared:
            features[target].append(seen[targets[:, data.names.index(target)] > 0.5])
    noise, reference = reference_noise(generator), comparison.references[1]

    def samples(z: Tensor) -> Tensor:
        return torch.cat([pooled_features(judge, generator(part))[0] for part in z.split(BATCH_SIZE)])

    distances: dict[Key, tuple[float, float]] = {}
    for target in shared:
        real = torch.cat(features[target])
        having = noise[reference[:, attributes.find(target, comparison.classes[1])] > 0]
        steered = {name: comparison.trials[name, target].last for name, sign in comparison.signs.items() if sign > 0}
        if min(map(len, (real, having, *steered.values()))) < MIN_IMAGES:
            continue
        unedited = kernel_distance(real, samples(having))
        for name, last in steered.items():
            distances[name, target] = kernel_distance(real, samples(last)), unedited
    return distances
