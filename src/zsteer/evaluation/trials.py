"""Trials: one contender steers the same images towards one attribute, and the judge scores every step.

Each image is looked at where it first reaches a level of judged gain, interpolated linearly between two steps. Images
that never reach it are counted.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
from zsteer.files import atomic_write, slug
from zsteer.networks.inference import frozen, pooled_features
from zsteer.pictures import to_uint8
from zsteer.steering.history import History
from zsteer.steering.metrics import sigma_of
from zsteer.steering.reference import reference_noise
from zsteer.steering.session import Job, Session, group_of

LEVELS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # of judged gain, in σ
TABLE_LEVELS = (1.0, 2.0)
JOB_SIZE = 8  # images of a job: the tutorial's step is 1/n of an image's gradient
MAX_ROWS = 64
BATCH_SIZE = 128
NUM_SHOWN, NUM_FRAMES = 8, 9  # images of a trial that the report shows, and their moments
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
        with atomic_write(path) as temporary:
            save_file({part.name: getattr(self, part.name).contiguous() for part in fields(self)}, temporary)

    @classmethod
    def load(cls, path: Path) -> "Trial | None":
        """What `save` wrote; None if there is none, or if it is damaged."""
        try:
            return cls(**load_file(path))
        except (FileNotFoundError, SafetensorError, TypeError):  # of a torn file, or one with other parts
            return None


@dataclass(frozen=True)
class Trials:
    """All trials of a comparison, and the session of the last: its networks and reference logits are those of all."""

    held: dict[Key, Trial]
    session: Session


def run_trials(jobs: Mapping[str, Sequence[DictConfig]], folder: Path | None) -> Trials:
    """Run the trials that the folder does not have yet; each is kept there as soon as it has ended.

    Args:
        jobs: for each contender the checked configs of `steer`, one for each target.

    Raises:
        ValueError, FileNotFoundError: a setting of a contender is wrong, or a network does not fit.
    """
    session, group, held = None, None, {}
    bar = tqdm([(name, job) for name, own in jobs.items() for job in own], desc="Comparing", unit="trial")
    for name, job in bar:
        bar.set_postfix_str(f"{name}, {job.target}")
        if session is None or group_of(job) != group:
            session, group = Session(job), group_of(job)
        path = (
            None if folder is None else folder / "trials" / f"{file_name(name, job, session.fingerprints)}.safetensors"
        )
        if path is not None and (kept := Trial.load(path)) is not None:
            held[name, job.target] = kept
            continue
        trial = run_trial(session, job)
        if path is not None:
            trial.save(path)
        held[name, job.target] = trial
    assert session is not None
    return Trials(held, session)


def file_name(contender: str, job: DictConfig, fingerprints: Mapping[str, str]) -> str:
    """Contender, target and a digest of settings and networks, so that no other trial is taken for this one."""
    made_of = json.dumps([OmegaConf.to_container(job, resolve=True), dict(fingerprints)], sort_keys=True)
    return f"{slug([contender, job.target])}_{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"


@torch.no_grad()
def run_trial(session: Session, cfg: DictConfig) -> Trial:
    """Steer a contender's images in jobs of eight, and have the judge score every step."""
    job = session.job(cfg)
    whole_path = frozenset(range(cfg.num_steps))
    parts = []
    for first in range(0, len(job.noise), JOB_SIZE):
        rows = job.rows[first : first + JOB_SIZE]
        rows = replace(rows, job_size=torch.full((len(rows),), len(rows)))
        parts.append(Job(job.settings, job.noise[first : first + JOB_SIZE], rows, whole_path))
    histories: list[History] = []
    scored: list[Tensor] = []
    together = MAX_ROWS // JOB_SIZE
    for first in range(0, len(parts), together):
        with torch.enable_grad():
            batch = session.steer(parts[first : first + together], progress_bar=False)
        for history in batch:
            history.check_finite()
            images = [history.images.pop(step) for step in sorted(history.images)]
            assert session.judge is not None
            scored.append(torch.stack([session.judge.logits(part) for part in images]))
        histories += batch
    history = History.joined(histories)
    noise, logits = torch.stack(history.noise).float(), torch.stack(history.logits).float()
    return _trial(session, job, noise, logits, torch.cat(scored, dim=1))


def _trial(
    session: Session,
    job: Job,
    noise: Float[Tensor, "steps n z_dim"],
    classified: Float[Tensor, "steps n k"],
    judged: Float[Tensor, "steps n j"],
) -> Trial:
    """Look at a path where the judge's gain reaches each level."""
    assert session.judge is not None
    names = session.networks.classifier.names, session.judge.names
    columns = [attributes.find(job.settings["target"], own) for own in names]
    sigmas = [sigma_of(reference).float() for reference in session.references]
    sign = EDITS[job.settings["edit"]]
    seen = sign * ((classified - classified[0]) / sigmas[0])[:, :, columns[0]]
    change = (judged - judged[0]) / sigmas[1]
    gain = sign * change[:, :, columns[1]]
    when = torch.stack([first_crossing(gain, level) for level in LEVELS])
    noise_at, change_at, seen_at = (
        torch.stack([along(path, moments) for moments in when]) for path in (noise, change, seen)
    )
    generator = frozen(session.networks.generator, torch.float32, session.device)
    judge = session.judge.network

    def features(z: Tensor) -> Tensor:
        images = (generator(part.to(session.device)) for part in z.split(BATCH_SIZE))
        return torch.cat([pooled_features(judge, part)[0].cpu() for part in images])

    one, other = features(reference_noise(generator)[: 2 * BATCH_SIZE]).chunk(2)
    usual = 1 - cosine_similarity(one, other).mean()
    start = features(noise[0])
    there = [features(noise_at[LEVELS.index(level)]) for level in TABLE_LEVELS]
    identity = torch.stack([(1 - cosine_similarity(start, now)) / usual for now in there])
    until = when[-1][:NUM_SHOWN].nan_to_num(len(noise) - 1)
    moments = torch.linspace(0, 1, NUM_FRAMES)[:, None] * until
    frames = [generator(along(noise[:, :NUM_SHOWN], moment).to(session.device)).cpu() for moment in moments]
    gains = torch.stack([along(gain[:, :NUM_SHOWN], moment) for moment in moments])
    return Trial(
        step=when,
        noise=noise_at,
        judge=change_at,
        seen=seen_at,
        identity=identity,
        start=judged[0],
        end=judged[-1],
        last=noise[-1],
        frames=to_uint8(torch.stack(frames)),
        gains=gains,
    )


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
