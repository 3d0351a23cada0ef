"""Trials: what one contender did to some images for one attribute, as a judge sees it.

Each image is looked at where it first reaches a level of judged gain, interpolated linearly between two steps: so many
σ, or the flip, at which the judge first sees what was wanted. Images that never reach it are counted.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.data.attributes import EDITS
from zsteer.data.faces import FaceData, ProceduralFaces
from zsteer.data.procedural import SIZE
from zsteer.evaluation.limits import drawn_edit, optimum, people_without
from zsteer.evaluation.trajectories import Scorer, Trajectory, along, steered
from zsteer.files import atomic_write, slug
from zsteer.networks.fingerprints import fingerprint
from zsteer.networks.inference import num_free
from zsteer.networks.loading import load_classifier, try_generator
from zsteer.pictures import to_uint8
from zsteer.settings import LIMITS
from zsteer.steering.metrics import norm_percentiles, sigma_of
from zsteer.steering.session import Session, group_of

Level = float | str  # a gain in σ, or the flip
FLIP = "flip"
GAINS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # σ, as the judge sees it
LEVELS: tuple[Level, ...] = (*GAINS, FLIP)
TABLE_LEVELS: tuple[Level, ...] = (FLIP, 1.0, 2.0)
NUM_SHOWN, NUM_FRAMES = 8, 9  # images of a trial that the report shows, and their moments
Key = tuple[str, str]  # a contender's name and a target


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """What one contender did to n images for one target; NaN where an image never reached one of the L levels.

    step `[L, n]` at which it did; judge `[L, n, J]`, the judge's change in σ; seen `[L, n]`, the steering classifier's
    change of the target's logit in σ, success positive; norm `[L, n]`, the percentile of ‖z‖² in the prior; identity
    `[T, n]`, at the table's levels, the cosine distance from the start in the judge's features, 1 being that of two
    random samples; start and end `[n, J]`, the judge's logits; features `[n, d]`, the judge's at the end; frames uint8
    `[F, m, 3, H, W]` on the way to the largest gain (or the end), and gains `[F, m]`, as the judge sees them there.
    """

    step: Tensor
    judge: Tensor
    seen: Tensor
    norm: Tensor
    identity: Tensor
    start: Tensor
    end: Tensor
    features: Tensor
    frames: Tensor
    gains: Tensor

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        with atomic_write(path) as temporary:
            save_file({part.name: getattr(self, part.name).contiguous() for part in fields(self)}, temporary)


def kept_trial(path: Path) -> Trial | None:
    """What `Trial.save` wrote; None if there is no such file, or it is damaged."""
    try:
        return Trial(**load_file(path))
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, TypeError):
        log.warning("%s is damaged; running that trial again", path)
        return None


@dataclass(frozen=True)
class Trials:
    """All trials of a comparison as each judge sees them, by the judge's role, and who scored them.

    The session is the last one's: its networks and reference logits are those of all.
    """

    held: dict[str, dict[Key, Trial]]
    session: Session
    scorers: dict[str, Scorer]


def run_trials(
    cfg: DictConfig, jobs: Mapping[str, Sequence[DictConfig]], data: FaceData, folder: Path | None
) -> Trials:
    """Run the trials that the folder does not have yet; each is kept there as soon as it has ended.

    Args:
        jobs: for each contender the checked configs of `steer`, one for each target.

    Raises:
        ValueError, FileNotFoundError: a setting of a contender is wrong, or a network does not fit.
    """
    first = next(iter(jobs.values()))
    session, group = Session(first[0]), group_of(first[0])
    scorers = scorers_of(session, cfg, first[0].edit)
    held: dict[str, dict[Key, Trial]] = {role: {} for role in scorers}
    digits = session.fingerprints | {role: fingerprint(scorer.judge.network) for role, scorer in scorers.items()}
    limits = list(cfg.limits)
    if "drawn" in limits and (reason := not_drawn(data, cfg, session)):
        log.warning("limits=[drawn] is left out: %s", reason)
        limits.remove("drawn")
    if "drawn" in limits:
        assert isinstance(data, ProceduralFaces)
        for job in first:  # which raises before anything is steered
            people_without(data, cfg.split, job.target, EDITS[job.edit], job.num_images)
    trials = [(name, job, None) for name, own in jobs.items() for job in own]
    trials += [(LIMITS[word], job, word) for word in limits for job in first]
    bar = tqdm(trials, desc="Comparing", unit="trial")
    for name, job, limit in bar:
        bar.set_postfix_str(f"{name}, {job.target}")
        if group_of(job) != group:
            session, group = Session(job), group_of(job)
        made_of = [digits, OmegaConf.to_container(cfg.data, resolve=True), cfg.split] if limit == "drawn" else [digits]
        stem = file_name(name, job, made_of)
        paths = {} if folder is None else {role: folder / "trials" / f"{stem}_{role}.safetensors" for role in scorers}
        kept = {role: trial for role, path in paths.items() if (trial := kept_trial(path)) is not None}
        if len(kept) < len(scorers):
            trajectory = _trajectory(session, scorers, job, limit, data, cfg.split)
            kept = {role: trial_of(session, scorer, job, trajectory, role) for role, scorer in scorers.items()}
            for role, path in paths.items():
                kept[role].save(path)
        for role, trial in kept.items():
            held[role][name, job.target] = trial
    return Trials(held, session, scorers)


def not_drawn(data: FaceData, cfg: DictConfig, session: Session) -> str | None:
    """Why there is no drawn edit; None if there is."""
    if not isinstance(data, ProceduralFaces):
        return f"the faces of {type(data).__name__} cannot be drawn again"
    for target in cfg.targets:
        if others := [part for part in attributes.parts(target) if part not in attributes.CELEBA]:
            return f"{others[0]} is no attribute that can be drawn or left out"
    height, width = try_generator(session.networks.generator).shape[2:]
    if (height, width) != (SIZE, SIZE):
        return f"drawn faces have {SIZE}×{SIZE} pixels, the generator's {height}×{width}"
    return None


def scorers_of(session: Session, cfg: DictConfig, edit: str = "add") -> dict[str, Scorer]:
    """The judge that levels are counted by, and the second one if there is one."""
    assert session.networks.judge is not None
    scorers = {"judge": Scorer(session, session.networks.judge, "judge")}
    if cfg.second_judge is not None:
        images = try_generator(session.networks.generator)
        second = load_classifier(cfg.second_judge, "second_judge", images, cfg.targets[0], edit)
        scorers["second_judge"] = Scorer(session, second, "second_judge")
    return scorers


def _trajectory(
    session: Session, scorers: Mapping[str, Scorer], job: DictConfig, limit: str | None, data: FaceData, split: str
) -> Trajectory:
    sign = EDITS[job.edit]
    if limit == "drawn":
        assert isinstance(data, ProceduralFaces)
        return drawn_edit(session, scorers, data, split, job.target, sign, job.num_images)
    if limit == "optimum":
        return optimum(session, scorers, job.target, sign, session.job(job).noise)
    return steered(session, scorers, job)


def file_name(contender: str, job: DictConfig, made_of: Sequence[object]) -> str:
    """Contender, target and a digest of settings and networks, so that no other trial is taken for this one."""
    text = json.dumps([OmegaConf.to_container(job, resolve=True), *made_of], sort_keys=True)
    return f"{slug([contender, job.target])}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@torch.no_grad()
def trial_of(session: Session, scorer: Scorer, job: DictConfig, trajectory: Trajectory, role: str = "judge") -> Trial:
    """Look at a trajectory where a judge's gain reaches each level."""
    names = session.networks.classifier.names, scorer.judge.names
    columns = [attributes.find(job.target, own) for own in names]
    sign = EDITS[job.edit]
    classified, judged = trajectory.classified, trajectory.judged[role]
    seen = sign * ((classified - classified[0]) / sigma_of(session.references[0]).float())[:, :, columns[0]]
    change = (judged - judged[0]) / scorer.sigma
    gain = sign * change[:, :, columns[1]]
    to_flip = -sign * judged[0][:, columns[1]] / scorer.sigma[columns[1]]
    flip = to_flip.where(to_flip > 0, torch.nan)  # none where the judge sees it from the start
    when = torch.stack([first_crossing(gain, flip if isinstance(level, str) else level) for level in LEVELS])
    change_at, seen_at = (torch.stack([along(path, moments) for moments in when]) for path in (change, seen))
    noise = trajectory.noise
    free = num_free(session.networks.generator)
    norm = (
        torch.full_like(when, torch.nan)
        if noise is None
        else torch.stack([norm_percentiles(along(noise, moments)[:, :free]).float() for moments in when])
    )

    def features(moments: Float[Tensor, " n"]) -> Tensor:
        return scorer.features(lambda part: trajectory.images_at(part, moments[part]), len(moments))

    start, end = torch.zeros_like(when[0]), torch.full_like(when[0], len(gain) - 1)
    before = features(start)
    there = [features(when[LEVELS.index(level)]) for level in TABLE_LEVELS]
    identity = torch.stack([(1 - cosine_similarity(before, now)) / scorer.usual_distance for now in there])
    until = when[len(GAINS) - 1][:NUM_SHOWN].nan_to_num(len(gain) - 1)
    moments = torch.linspace(0, 1, NUM_FRAMES)[:, None] * until
    shown = slice(0, len(until))
    return Trial(
        step=when,
        judge=change_at,
        seen=seen_at,
        norm=norm,
        identity=identity,
        start=judged[0],
        end=judged[-1],
        features=features(end),
        frames=to_uint8(torch.stack([trajectory.images_at(shown, moment) for moment in moments])),
        gains=torch.stack([along(gain[:, :NUM_SHOWN], moment) for moment in moments]),
    )


def first_crossing(gain: Float[Tensor, "steps n"], level: float | Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The step, interpolated linearly, at which each image's gain first reaches a positive level; NaN if never.

    Args:
        level: of all, or each image's own; NaN is never reached.
    """
    reached = gain >= level
    after = reached.int().argmax(dim=0, keepdim=True).clamp_min(1)
    high, low = gain.gather(0, after).squeeze(0), gain.gather(0, after - 1).squeeze(0)
    step = after.squeeze(0) - 1 + (level - low) / (high - low)
    return step.where(reached.any(dim=0), torch.nan)
