"""How images change step by step under a steering method, and what every judge sees of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import cosine_similarity

from zsteer.networks.inference import check_finite, frozen, pooled_features
from zsteer.networks.loading import NamedClassifier
from zsteer.networks.memory import in_parts
from zsteer.steering.history import History
from zsteer.steering.judge import Judge
from zsteer.steering.metrics import sigma_of
from zsteer.steering.reference import reference_logits, reference_noise
from zsteer.steering.session import Job, Session

JOB_SIZE = 8  # images of a job: the tutorial's step is 1/n of an image's gradient
MAX_ROWS = 64
BATCH_SIZE = 128


@dataclass(frozen=True)
class Trajectory:
    """How n images changed over T moments, by whatever changed them.

    classified `[T, n, K]`, the steering classifier's logits; judged `[T, n, J]`, those of each judge; noise
    `[T, n, z_dim]`, None where no generator took part; images_at, of some rows at a moment of each row's own (see
    `along`), in [-1, 1], NaN where that is NaN.
    """

    classified: Float[Tensor, "steps n k"]
    judged: Mapping[str, Float[Tensor, "steps n j"]]
    images_at: Callable[[slice, Float[Tensor, " n"]], Float[Tensor, "n 3 h w"]]
    noise: Float[Tensor, "steps n z_dim"] | None = None


class Scorer:
    """A judge, what it says of unsteered samples, and how far two of these are apart in its features."""

    def __init__(self, session: Session, classifier: NamedClassifier, role: str):
        self.judge = Judge(classifier, session.device, role)
        (self.reference,) = reference_logits(session.networks.generator, [classifier.network], session.device)
        check_finite(role, self.reference)
        self.sigma = sigma_of(self.reference).float()
        generator = frozen(session.networks.generator, torch.float32, session.device)
        samples = reference_noise(generator)[: 2 * BATCH_SIZE]
        one, other = self.features(lambda part: generator(samples[part].to(session.device)), len(samples)).chunk(2)
        self.usual_distance = 1 - cosine_similarity(one, other).mean()

    @torch.no_grad()
    def features(self, images_of: Callable[[slice], Tensor], num_images: int) -> Float[Tensor, "n d"]:
        """The judge's features of images that are made as they are needed."""

        def of(part: slice) -> Tensor:
            return pooled_features(self.judge.network, images_of(part).to(self.judge.device), self.judge.role)[0].cpu()

        return torch.cat(
            [
                in_parts(
                    lambda part, first=first: of(slice(first + part.start, first + part.stop)),
                    min(BATCH_SIZE, num_images - first),
                    torch.cat,
                )
                for first in range(0, num_images, BATCH_SIZE)
            ]
        )


def along(path: Float[Tensor, "steps n ..."], when: Float[Tensor, " n"]) -> Float[Tensor, "n ..."]:
    """Each image's values at its own step, interpolated linearly; NaN where the step is."""
    before = when.nan_to_num(0).floor().long().clamp(0, len(path) - 2)
    image = torch.arange(path.shape[1])
    share = (when - before).view(-1, *[1] * (path.ndim - 2))
    return path[before, image] * (1 - share) + path[before + 1, image] * share


@torch.no_grad()
def steered(session: Session, scorers: Mapping[str, Scorer], cfg: DictConfig) -> Trajectory:
    """Steer a contender's images in jobs of eight, and have the judges score every step."""
    job = session.job(cfg)
    whole_path = frozenset(range(cfg.num_steps))
    parts = []
    for first in range(0, len(job.noise), JOB_SIZE):
        rows = job.rows[first : first + JOB_SIZE]
        rows = replace(rows, job_size=torch.full((len(rows),), len(rows)))
        parts.append(Job(job.settings, job.noise[first : first + JOB_SIZE], rows, whole_path))
    histories: list[History] = []
    judged: dict[str, list[Tensor]] = {role: [] for role in scorers}
    together = MAX_ROWS // JOB_SIZE
    for first in range(0, len(parts), together):
        with torch.enable_grad():
            batch = session.steer(parts[first : first + together], progress_bar=False)
        for history in batch:
            session.check_finite(history)
            images = [history.images.pop(step) for step in sorted(history.images)]
            for role, scorer in scorers.items():
                judged[role].append(torch.stack([scorer.judge.logits(part) for part in images]))
        histories += batch
    history = History.joined(histories)
    noise, logits = torch.stack(history.noise).float(), torch.stack(history.logits).float()
    by_role = {role: torch.cat(own, dim=1) for role, own in judged.items()}
    return Trajectory(logits, by_role, images_of(session, noise), noise)


def images_of(session: Session, noise: Float[Tensor, "steps n z_dim"]) -> Callable[[slice, Tensor], Tensor]:
    """The generator's images along a path of noise, as a `Trajectory` has them."""
    generator = frozen(session.networks.generator, torch.float32, session.device)

    def at(rows: slice, when: Float[Tensor, " n"]) -> Float[Tensor, "n 3 h w"]:
        return generator(along(noise[:, rows], when).to(session.device)).cpu()

    return at


@torch.no_grad()
def scored(
    session: Session,
    scorers: Mapping[str, Scorer],
    images_at: Callable[[slice, Tensor], Tensor],
    num_moments: int,
    num_images: int,
) -> tuple[Float[Tensor, "steps n k"], dict[str, Float[Tensor, "steps n j"]]]:
    """What the steering classifier and the judges say of images at each moment (see `Trajectory`)."""
    classifier = frozen(session.networks.classifier.network, torch.float32, session.device)
    classified: list[Tensor] = []
    judged: dict[str, list[Tensor]] = {role: [] for role in scorers}
    for moment in range(num_moments):
        when = torch.full((num_images,), float(moment))
        parts = [slice(first, min(first + MAX_ROWS, num_images)) for first in range(0, num_images, MAX_ROWS)]
        images = torch.cat([images_at(part, when[part]).cpu() for part in parts])
        classified.append(
            in_parts(lambda part, seen=images: classifier(seen[part].to(session.device)).cpu(), num_images, torch.cat)
        )
        for role, scorer in scorers.items():
            judged[role].append(scorer.judge.logits(images))
    return torch.stack(classified), {role: torch.stack(own) for role, own in judged.items()}
