"""The path of faces along an attribute: steered once, away from it and towards it, and then only looked up."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, UInt8
from omegaconf import DictConfig
from torch import Tensor

from zsteer.data import attributes
from zsteer.networks.inference import check_finite, frozen
from zsteer.networks.memory import in_parts
from zsteer.pictures import to_uint8
from zsteer.steering.metrics import Scored
from zsteer.steering.session import Session

Told = Callable[[float], None]  # is told which share of the work is done


@dataclass(frozen=True)
class SteeredPath:
    """What faces go through from where the target is removed the furthest to where it is added the most.

    The moment `start` is where they came from; the last axis but for images is that of numbers or logits. `judged` is
    what the judge sees, and without a judge what the classifier does.
    `names` and `references` are both networks', those their logits over unsteered samples; `step_size` is the config's.
    """

    target: str
    start: int
    noise: Float[Tensor, "moments n z_dim"]
    images: UInt8[Tensor, "moments n 3 h w"]
    seen: Float[Tensor, "moments n k"]
    judged: Float[Tensor, "moments n kj"]
    names: tuple[tuple[str, ...], tuple[str, ...]]
    references: tuple[Float[Tensor, "samples k"], Float[Tensor, "samples kj"]]
    step_size: float | str

    def __len__(self) -> int:
        return len(self.noise)

    @property
    def num_bytes(self) -> int:
        """What it keeps in memory, without the logits of unsteered samples, which paths share."""
        return sum(tensor.nbytes for tensor in (self.noise, self.images, self.seen, self.judged))

    def scored_by_classifier(self, moment: int, start: Float[Tensor, "n k"] | None = None) -> Scored:
        """What the steering classifier says of a moment and of the path's start, or other logits there."""
        before = self.seen[self.start] if start is None else start
        return Scored(self.names[0], before, self.seen[moment], self.references[0])

    def scored_by_judge(self, moment: int, start: Float[Tensor, "n kj"] | None = None) -> Scored:
        """What the judge says, likewise."""
        before = self.judged[self.start] if start is None else start
        return Scored(self.names[1], before, self.judged[moment], self.references[1])

    @cached_property
    def gains(self) -> list[float]:
        """The judged change of the target since the start in σ at each moment, the mean over the faces."""
        column = attributes.find(self.target, self.names[1])
        return [self.scored_by_judge(moment).change[:, column].mean().item() for moment in range(len(self))]

    @property
    def reach(self) -> tuple[float, float]:
        """How far the target is removed (a number of at most 0) and added, in σ."""
        return min(self.gains[: self.start + 1]), max(self.gains[self.start :])

    def nearest(self, gain: float) -> int:
        """The moment, after the fewest steps, whose judged change is nearest to `gain` σ; negative ones remove."""
        side = range(self.start, -1, -1) if gain < 0 else range(self.start, len(self))
        return min(side, key=lambda moment: abs(self.gains[moment] - gain))


def steer_path(session: Session, cfg: DictConfig, noise: Float[Tensor, "n z_dim"], told: Told) -> SteeredPath:
    """Steer faces from their noise in both directions.

    Args:
        cfg: a checked config of `steer` of the session's group, which starts from any n samples.

    Raises:
        ValueError: a score, a logit or an image became NaN or infinite.
    """
    halves = []
    for number, edit in enumerate(("remove", "add")):
        cfg.edit = edit
        job = replace(session.job(cfg), noise=noise, shown=frozenset(range(cfg.num_steps)))

        def after_step(done: int, number: int = number) -> None:
            told((number + done / cfg.num_steps) / 2)

        (history,) = session.steer([job], progress_bar=False, after_step=after_step)
        session.check_finite(history)
        images = torch.stack([history.images[step] for step in range(cfg.num_steps + 1)])
        halves.append((torch.stack(history.noise), images, torch.stack(history.logits)))
    back, forth = halves
    noise, images, seen = (torch.cat([one.flip(0)[:-1], other]) for one, other in zip(back, forth, strict=True))
    names, judged = session.networks.classifier.names, seen
    if session.judge is not None:
        names, judged = session.judge.names, judged_logits(session, images.flatten(0, 1)).unflatten(0, images.shape[:2])
    return SteeredPath(
        target=attributes.canonical(cfg.target),
        start=len(back[0]) - 1,
        noise=noise,
        images=to_uint8(images),
        seen=seen.float(),
        judged=judged.float(),
        names=(session.networks.classifier.names, names),
        references=(session.references[0], session.references[-1]),
        step_size=cfg.step_size,
    )


@torch.no_grad()
def judged_logits(session: Session, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
    """What the session's judge says of images, and without a judge its classifier.

    Raises:
        ValueError: NaN or infinity.
    """
    if session.judge is None:
        role, network = "classifier", frozen(session.networks.classifier.network, torch.float32, session.device)
    else:
        role, network = "judge", session.judge.network
    logits = in_parts(lambda part: network(images[part].to(session.device)).cpu(), len(images), torch.cat)
    check_finite(role, logits)
    return logits
