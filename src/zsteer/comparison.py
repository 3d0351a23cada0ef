"""Compare steering methods at equal judged gain: what else had changed once the judge saw the target change so far?

Each contender steers the same images towards the same attributes, the judge scores every step, and each image is looked
at where it first reaches the gain, interpolated linearly between two steps. Images that never reach it are counted.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from zsteer import attributes, checks, metrics
from zsteer.checks import EDITS
from zsteer.data import FaceData, scale
from zsteer.fidelity import kernel_distance
from zsteer.files import whole
from zsteer.jobs import Bench, Plan, group_of
from zsteer.metrics import sigma_of
from zsteer.networks import frozen, pooled_features
from zsteer.pictures import to_uint8
from zsteer.reference import reference_noise
from zsteer.run import slug
from zsteer.steering import History
from zsteer.sweeps import interval

LEVELS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # of judged gain, in σ
TABLE_LEVELS = (1.0, 2.0)
JOB_SIZE = 8  # images of a job: the tutorial's step is 1/n of an image's gradient
MAX_ROWS = 64
BATCH_SIZE = 128
MIN_IMAGES = 16  # of which a kernel distance says anything
NUM_SHOWN, NUM_FRAMES = 8, 9  # images of a trial that the report shows, and their moments

Row = dict[str, Any]
Key = tuple[str, str]  # a contender's name and a target


@dataclass(frozen=True)
class Trial:
    """What one contender did to n images for one target; NaN where an image never reached one of the L levels.

    step `[L, n]` at which it did; noise `[L, n, z_dim]` there; judge `[L, n, K]`, the judge's change in σ; seen
    `[L, n]`, the steering classifier's change of the target's logit in σ, success positive; identity `[T, n]`, at the
    table's levels, the cosine distance from the start in the judge's features, 1 being that of two random samples;
    start and end `[n, K]`, the judge's logits; last `[n, z_dim]`, the noise at the end; frames uint8 `[F, m, 3, H, W]`
    on the way to the last level (or the end), and gains `[F, m]`, as the judge sees them there.
    """

    step: Tensor
    noise: Tensor
    judge: Tensor
    seen: Tensor
    identity: Tensor
    start: Tensor
    end: Tensor
    last: Tensor
    frames: Tensor
    gains: Tensor

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        with whole(path) as temporary:
            save_file({part.name: getattr(self, part.name).contiguous() for part in fields(self)}, temporary)

    @classmethod
    def load(cls, path: Path) -> "Trial":
        """What `save` wrote."""
        return cls(**load_file(path))


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
        return self.trials[key].judge[level][:, self.others(key[1])].abs().mean(dim=1)

    def hacking_gap(self, key: Key, level: int) -> Float[Tensor, " n"]:
        """What the classifier gained at a level beyond what a judge that agrees to ρ would see."""
        columns = [attributes.find(key[1], names) for names in self.classes]
        pair = [logits[:, column] for logits, column in zip(self.references, columns, strict=True)]
        return metrics.correlation(*pair) * self.trials[key].seen[level] - LEVELS[level]


def hold_trials(cfg: DictConfig, folder: Path) -> Comparison:
    """Hold the trials of a config that the folder does not have yet; each is kept as soon as it has been held.

    Raises:
        ValueError, FileNotFoundError: a setting of a contender is wrong, a network does not fit, or some of the targets
            are the regressor's or join several and others not, so that the judge would not be the same for all.
    """
    kinds = {(attributes.needs_regressor(cfg.judge, target), "+" in target and target) for target in cfg.targets}
    if len(kinds) > 1:
        raise ValueError(
            f"targets={list(cfg.targets)} must be all of them labels, or all of them factors, or one that joins several"
        )
    jobs = {name: [_job(cfg, words, target) for target in cfg.targets] for name, words in cfg.contenders.items()}
    bench, group, trials = None, None, {}
    bar = tqdm([(name, job) for name, own in jobs.items() for job in own], desc="Comparing", unit="trial")
    for name, job in bar:
        bar.set_postfix_str(f"{name}, {job.target}")
        if bench is None or group_of(job) != group:
            bench, group = Bench(job), group_of(job)
        # With its settings in its name, a trial of other settings is not taken for this one.
        settings = json.dumps(OmegaConf.to_container(job, resolve=True), sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        path = folder / "trials" / f"{slug([name, job.target])}_{digest}.safetensors"
        if not path.is_file():
            hold(bench, job).save(path)
        trials[name, job.target] = Trial.load(path)
    assert bench is not None and bench.networks.judge is not None
    signs = {name: EDITS[own[0].edit] for name, own in jobs.items()}
    return Comparison(trials, signs, bench.references, (bench.networks.classifier.names, bench.networks.judge.names))


def _job(cfg: DictConfig, words: Sequence[str], target: str) -> DictConfig:
    """The checked config of `steer` for a contender and a target, with the networks of this evaluation.

    It starts from images that lack what is wanted, as the steering classifier sees it.
    """
    job = hydra.compose("steer", [*words, f"target={target}"])
    for key in ("generator", "classifier", "judge", "num_images", "seed"):
        job[key] = cfg[key]
    checks.steer(job)
    if not attributes.needs_regressor(job.classifier, target):
        job.where = {target: job.edit != "add"}
    return job


@torch.no_grad()
def hold(bench: Bench, cfg: DictConfig) -> Trial:
    """Steer a contender's images in jobs of eight, and have the judge score every step."""
    plan = bench.plan(cfg)
    whole_path = frozenset(range(cfg.num_steps))
    plans = []
    for first in range(0, len(plan.noise), JOB_SIZE):
        rows = plan.rows[first : first + JOB_SIZE]
        rows = replace(rows, job_size=torch.full((len(rows),), len(rows)))
        plans.append(Plan(plan.settings, plan.noise[first : first + JOB_SIZE], rows, whole_path))
    histories: list[History] = []
    scored: list[Tensor] = []
    together = MAX_ROWS // JOB_SIZE
    for first in range(0, len(plans), together):
        with torch.enable_grad():
            batch = bench.histories(plans[first : first + together], progress_bar=False)
        for history in batch:
            history.check_finite()
            images = [history.images.pop(step) for step in sorted(history.images)]
            scored.append(torch.stack([bench.judge_logits(part) for part in images]))
        histories += batch
    history = History.joined(histories)
    return _trial(
        bench, plan, torch.stack(history.noise).float(), torch.stack(history.logits).float(), torch.cat(scored, dim=1)
    )


def _trial(
    bench: Bench,
    plan: Plan,
    noise: Float[Tensor, "steps n z_dim"],
    classified: Float[Tensor, "steps n k"],
    judged: Float[Tensor, "steps n j"],
) -> Trial:
    """Look at a path where the judge's gain reaches each level."""
    assert bench.networks.judge is not None
    names = bench.networks.classifier.names, bench.networks.judge.names
    columns = [attributes.find(plan.settings["target"], own) for own in names]
    sigmas = [sigma_of(reference).float() for reference in bench.references]
    sign = EDITS[plan.settings["edit"]]
    seen = sign * ((classified - classified[0]) / sigmas[0])[:, :, columns[0]]
    change = (judged - judged[0]) / sigmas[1]
    gain = sign * change[:, :, columns[1]]
    when = torch.stack([first_crossing(gain, level) for level in LEVELS])
    noise_at, change_at, seen_at = (
        torch.stack([along(path, moments) for moments in when]) for path in (noise, change, seen)
    )
    generator = frozen(bench.networks.generator, torch.float32, bench.device)
    judge = frozen(bench.networks.judge.network, torch.float32, bench.device)

    def features(z: Tensor) -> Tensor:
        images = (generator(part.to(bench.device)) for part in z.split(BATCH_SIZE))
        return torch.cat([pooled_features(judge, part)[0].cpu() for part in images])

    one, other = features(reference_noise(generator)[: 2 * BATCH_SIZE]).chunk(2)
    usual = 1 - cosine_similarity(one, other).mean()
    start = features(noise[0])
    there = [features(noise_at[LEVELS.index(level)]) for level in TABLE_LEVELS]
    identity = torch.stack([(1 - cosine_similarity(start, now)) / usual for now in there])
    until = when[-1][:NUM_SHOWN].nan_to_num(len(noise) - 1)
    moments = torch.linspace(0, 1, NUM_FRAMES)[:, None] * until
    frames = [generator(along(noise[:, :NUM_SHOWN], moment).to(bench.device)).cpu() for moment in moments]
    gains = torch.stack([along(gain[:, :NUM_SHOWN], moment) for moment in moments])
    ends = (judged[0], judged[-1], noise[-1])
    return Trial(when, noise_at, change_at, seen_at, identity, *ends, to_uint8(torch.stack(frames)), gains)


def first_crossing(gain: Float[Tensor, "steps n"], level: float) -> Float[Tensor, " n"]:
    """The step, interpolated linearly, at which each image's gain first reaches a positive level; NaN if never."""
    reached = gain >= level
    after = reached.int().argmax(dim=0, keepdim=True).clamp_min(1)
    high, low = gain.gather(0, after).squeeze(0), gain.gather(0, after - 1).squeeze(0)
    step = after.squeeze(0) - 1 + (level - low) / (high - low)
    return step.where(reached.any(dim=0), torch.nan)


def along(path: Float[Tensor, "steps n ..."], when: Float[Tensor, " n"]) -> Float[Tensor, "n ..."]:
    """Each image's values at its own step, interpolated linearly; NaN where the step is."""
    before = when.nan_to_num(0).floor().long().clamp(0, len(path) - 2)
    image = torch.arange(path.shape[1])
    share = (when - before).view(-1, *[1] * (path.ndim - 2))
    return path[before, image] * (1 - share) + path[before + 1, image] * share


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


def _mean_interval(name: str, values: Float[Tensor, " n"]) -> Row:
    known = values[~values.isnan()].numpy()
    if not len(known):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = interval(known)
    return {name: known.mean().item(), f"{name}_low": low, f"{name}_high": high}


def _versus(dependency: Float[Tensor, " n"], first: Float[Tensor, " n"]) -> Row:
    both = ~(dependency.isnan() | first.isnan())
    if not both.any():
        return dict.fromkeys(("versus", "versus_low", "versus_high", "disjoint"))
    pair = np.stack([dependency[both].numpy(), first[both].numpy()])
    drawn = np.random.default_rng(0).integers(pair.shape[1], size=(1000, pair.shape[1]))
    own, firsts = pair[:, drawn].mean(axis=2)
    low, high = np.percentile(own / firsts, (2.5, 97.5)).tolist()
    disjoint = interval(pair[0])[1] < interval(pair[1])[0]
    return {
        "versus": (pair[0].mean() / pair[1].mean()).item(),
        "versus_low": low,
        "versus_high": high,
        "disjoint": disjoint,
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
