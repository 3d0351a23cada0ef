"""The figures of a comparison: what else had changed once the judge saw the target change so far?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor, nn
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.data.attributes import EDITS
from zsteer.data.faces import FaceData, scale
from zsteer.evaluation.trajectories import BATCH_SIZE
from zsteer.evaluation.trials import FLIP, LEVELS, TABLE_LEVELS, Key, Level, Trial, Trials
from zsteer.gan.fidelity import kernel_distance
from zsteer.networks.inference import pooled_features
from zsteer.settings import LIMITS
from zsteer.statistics import bootstrap_interval, bootstrap_ratio, mean_known
from zsteer.steering import metrics
from zsteer.steering.reference import reference_noise

MIN_IMAGES = 16  # of which a kernel distance says anything
DRAWN, OPTIMUM = LIMITS.values()
Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """All trials of an evaluation as one judge sees them, and what their figures are counted by.

    `references` are the steering classifier's and the judge's logits over unsteered samples, `classes` the classifier's
    names and the judge's; `signs` is +1 for each contender that adds, −1 for one that removes.
    """

    trials: dict[Key, Trial]
    signs: dict[str, float]
    references: Sequence[Tensor]
    classes: tuple[Sequence[str], Sequence[str]]

    @classmethod
    def of(cls, trials: Trials, jobs: Mapping[str, Sequence[DictConfig]], role: str = "judge") -> "Comparison":
        """What some trials of contenders' jobs amount to in a judge's eyes."""
        scorer, session = trials.scorers[role], trials.session
        held = trials.held[role]
        edits = {name: own[0].edit for name, own in jobs.items()}
        first = next(iter(edits.values()))  # which the limits are of
        signs = {name: EDITS[edits.get(name, first)] for name, _ in held}
        classes = (session.networks.classifier.names, scorer.judge.names)
        return cls(held, signs, [session.references[0], scorer.reference], classes)

    @property
    def contenders(self) -> list[str]:
        """Their names, in the config's order; the first is what the others are compared with."""
        return [name for name in self.names if name not in LIMITS.values()]

    @property
    def names(self) -> list[str]:
        """The contenders and, behind them, the limits."""
        return list(dict.fromkeys(name for name, _ in self.trials))

    @property
    def targets(self) -> list[str]:
        """The attributes that they were steered towards."""
        return list(dict.fromkeys(target for _, target in self.trials))

    def others(self, target: str) -> list[int]:
        """The judge's columns of what counts as a side effect."""
        return [self.classes[1].index(name) for name in attributes.others_of(target, self.classes[1])]

    def dependency(self, key: Key, level: int) -> Float[Tensor, " n"]:
        """Attribute dependency of each image at a level, NaN if it never reached it."""
        return metrics.dependency_by_image(self.trials[key].judge[level], self.others(key[1]))

    def hacking_gap(self, key: Key, level: int) -> Float[Tensor, " n"]:
        """What the classifier gained at a level beyond what a judge that agrees to ρ would see."""
        columns = [attributes.find(key[1], names) for names in self.classes]
        pair = [logits[:, column] for logits, column in zip(self.references, columns, strict=True)]
        trial = self.trials[key]
        return metrics.correlation(*pair) * trial.seen[level] - self.signs[key[0]] * trial.judge[level][:, columns[1]]


def figures(comparison: Comparison, kernel_distances: dict[Key, tuple[float, float]]) -> list[Row]:
    """A row for each level, contender and target.

    `arrived` is the share of the images that reach the level, of those that can: at the flip, of those in which the
    judge does not see what is wanted from the start. `versus` is the contender's dependency over the first one's, over
    the images that reach the level with both (a drawn edit's, which is of other images, over all of either); `way_to_…`
    how much of the way from the first one's to a limit's of the same edit it goes. `kid_at_end` is the kernel distance
    of its last images, and `kid_unedited` what that is to be compared with.
    """
    rows = []
    for level in TABLE_LEVELS:
        number = LEVELS.index(level)
        for key, trial in comparison.trials.items():
            name, target = key
            dependency, gap = comparison.dependency(key, number), comparison.hacking_gap(key, number)
            first = comparison.dependency((comparison.contenders[0], target), number)
            arrived = ~dependency.isnan()
            scored = metrics.Scored(comparison.classes[1], trial.start, trial.end, comparison.references[1])
            others = attributes.others_of(target, comparison.classes[1])
            effects = trial.judge[number][arrived][:, comparison.others(target)].abs().mean(dim=0)
            row: Row = {"level": level, "contender": name, "target": target}
            able = arrived if level != FLIP else arrived[metrics.lacking(scored, target, comparison.signs[name])]
            row |= {"num_images": len(arrived), "arrived": able.double().mean().item() if len(able) else None}
            row |= _mean_interval("step", trial.step[number])
            row |= _mean_interval("attribute_dependency", dependency)
            row["attribute_dependency_max"] = effects.max().item() if arrived.any() else None
            same_start = name != DRAWN and comparison.signs[name] == comparison.signs[comparison.contenders[0]]
            row |= _versus(dependency, first, paired=same_start)
            for limit, column in ((DRAWN, "way_to_drawn"), (OPTIMUM, "way_to_optimum")):
                if (limit, target) in comparison.trials:
                    best = comparison.dependency((limit, target), number)
                    same_edit = comparison.signs[name] == comparison.signs[limit]
                    row[column] = _way(dependency, first, best, name, limit) if same_edit else None
            row |= _mean_interval("hacking_gap", gap)
            row |= _mean_interval("identity_distance", trial.identity[TABLE_LEVELS.index(level)])
            norm = trial.norm[number][~trial.norm[number].isnan()]
            row["noise_norm_percentile"] = norm.mean().item() if len(norm) else None
            row["success_rate_at_end"] = metrics.success_rate(scored, target, comparison.signs[name])
            row["preservation_rate_at_end"] = metrics.preservation_rate(scored, others)
            row["kid_at_end"], row["kid_unedited"] = kernel_distances.get(key, (None, None))
            rows.append(row)
    return rows


def means(rows: Sequence[Row], level: Level, figure: str = "versus") -> dict[str, float | None]:
    """Each contender's mean of a figure at a level, over the targets that have one."""
    values: dict[str, list[float | None]] = {row["contender"]: [] for row in rows}
    for row in rows:
        if row["level"] == level:
            values[row["contender"]].append(row.get(figure))
    return {name: mean_known(own) for name, own in values.items()}


def _mean_interval(name: str, values: Float[Tensor, " n"]) -> Row:
    known = _reached(values)
    if not len(known):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = bootstrap_interval(known) or (None, None)
    return {name: known.mean().item(), f"{name}_low": low, f"{name}_high": high}


def _versus(dependency: Float[Tensor, " n"], first: Float[Tensor, " m"], paired: bool) -> Row:
    """A dependency over the first contender's: of the images that have both.

    Where these are no pairs, as a drawn edit is of other images, and taking an attribute away starts from others than
    adding it, it counts where at least half of its own have it.
    """
    row: Row = dict.fromkeys(("versus", "versus_low", "versus_high", "disjoint"))
    own, firsts = _known(dependency, first) if paired else (_reached(dependency), _reached(first))
    if not len(own) or not len(firsts) or not (paired or _by_half(dependency)):
        return row
    row["versus"] = (own.mean() / firsts.mean()).item()
    if paired:
        row["versus_low"], row["versus_high"] = bootstrap_ratio(own, firsts)
    ends, first_ends = bootstrap_interval(own), bootstrap_interval(firsts)
    row["disjoint"] = ends[1] < first_ends[0] if ends and first_ends else None
    return row


def _way(dependency: Tensor, first: Tensor, limit: Tensor, name: str, limits_name: str) -> float | None:
    """How much of the way from the first contender's dependency to a limit's another's goes; above 1 is beyond it.

    Of the images that have all, but for a drawn edit's (see `_versus`).
    """
    if limits_name == DRAWN:
        own, firsts = _known(dependency, first) if name != DRAWN else (_reached(dependency), _reached(first))
        best = _reached(limit) if _by_half(limit) else np.array([])
    elif name == DRAWN:
        return None
    else:
        own, firsts, best = _known(dependency, first, limit)
    if not (len(own) and len(firsts) and len(best)) or firsts.mean() <= best.mean():
        return None
    return ((firsts.mean() - own.mean()) / (firsts.mean() - best.mean())).item()


def _known(*dependencies: Float[Tensor, " n"]) -> list[np.ndarray]:
    """Several dependencies of the images that have all of them."""
    every = ~torch.stack(dependencies).isnan().any(dim=0)
    return [part[every].numpy() for part in dependencies]


def _reached(dependency: Float[Tensor, " n"]) -> np.ndarray:
    return dependency[~dependency.isnan()].numpy()


def _by_half(dependency: Float[Tensor, " n"]) -> bool:
    return 2 * len(_reached(dependency)) >= len(dependency)


SECONDED = ("arrived", "attribute_dependency", "versus", "disjoint", "way_to_drawn")  # that a second judge is asked for


def seconded(rows: Sequence[Row], second: Sequence[Row]) -> list[Row]:
    """The rows with a second judge's figures beside them, `second_…`, counted where it sees the levels reached itself.

    `confirmed` says whether both judges find the dependency's interval below the first contender's, or neither does;
    None of the first contender itself, and where one of them has no intervals.
    """
    contender = rows[0]["contender"]
    joined = []
    for row, other in zip(rows, second, strict=True):
        figures = {f"second_{name}": value for name, value in other.items() if name.startswith(SECONDED)}
        verdicts = row["disjoint"], other["disjoint"]
        judged = row["contender"] != contender and None not in verdicts
        joined.append(row | figures | {"confirmed": verdicts[0] == verdicts[1] if judged else None})
    return joined


@torch.no_grad()
def kernel_distances(
    comparison: Comparison, data: FaceData, split: str, generator: nn.Module, judge: nn.Module
) -> dict[Key, tuple[float, float]]:
    """KID in the judge's features against data that have the attribute: of each contender's last images, and of all
    unedited samples in which the judge sees the attribute.

    The estimate has no bias, so that their numbers need not be equal. A target that the data have no label of, or of
    which there are too few images, is left out, and so is a contender that takes the attribute away.
    """
    columns = {attributes.canonical(name): column for column, name in enumerate(data.names)}
    shared = [target for target in comparison.targets if attributes.canonical(target) in columns]
    features: dict[str, list[Tensor]] = {target: [] for target in shared}
    for images, targets in tqdm(data.split_batches(split, BATCH_SIZE), desc="Looking at the data"):
        seen, _ = pooled_features(judge, scale(images))
        for target in shared:
            features[target].append(seen[targets[:, columns[attributes.canonical(target)]] > 0.5])
    noise, reference = reference_noise(generator), comparison.references[1]

    def samples(z: Tensor) -> Tensor:
        return torch.cat([pooled_features(judge, generator(part))[0] for part in z.split(BATCH_SIZE)])

    distances: dict[Key, tuple[float, float]] = {}
    for target in shared:
        real = torch.cat(features[target])
        having = noise[reference[:, attributes.find(target, comparison.classes[1])] > 0]
        adding = [name for name, sign in comparison.signs.items() if sign > 0]
        steered = {name: comparison.trials[name, target].features for name in adding}
        if min(map(len, (real, having, *steered.values()))) < MIN_IMAGES:
            continue
        unedited = kernel_distance(real, samples(having))
        for name, last in steered.items():
            distances[name, target] = kernel_distance(real, last), unedited
    return distances
