"""What methods are compared with besides one another: the best edit that there is, and the best in the judge's eyes.

Neither is a method. The one draws the person again with the attribute; the other moves the noise by the judge itself,
which a network that it was not found by, the second judge, need not confirm.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.data.faces import ProceduralFaces, scale
from zsteer.data.procedural import People, render, with_attributes
from zsteer.data.procedural.rendering import people_of
from zsteer.data.store import SPLITS
from zsteer.evaluation.trajectories import MAX_ROWS, Scorer, Trajectory, images_of, scored
from zsteer.networks.inference import frozen, num_free
from zsteer.steering.methods import unit
from zsteer.steering.reference import reference_noise
from zsteer.steering.session import Session

NUM_MOMENTS = 21  # of a drawn edit, the first the face and the last its edit
MAX_LOOKED_AT = 100_000  # drawn people, for those who lack the attribute

AIM_STEP, MAX_AIM = 0.25, 6.0  # σ of judged gain: the aims rise by so much, at most to that
LAST_LEVEL = 2.0  # σ, of the tables
NUM_STARTS = 2  # a third and a fourth lower the mean |Δ|/σ by a few per cent more
STEPS_PER_AIM = 20
LEARNING_RATE = 0.02
SPREAD = 0.3  # of the starts around the face's noise
SHORTFALL_WEIGHT = 5.0  # of the squared σ that are missing, beside the mean |Δ|/σ of the others
SHELL = 0.99  # the share of the prior's noise whose norms are allowed


@torch.no_grad()
def drawn_edit(
    session: Session,
    scorers: Mapping[str, Scorer],
    faces: ProceduralFaces,
    split: str,
    target: str,
    sign: float,
    num_images: int,
) -> Trajectory:
    """Drawn people, and the same people drawn again with the attribute changed and all else equal.

    On the way a factor that the attribute changes moves evenly, as `smile` does for Smiling, and what the attribute
    itself draws is mixed in.
    """
    before = people_without(faces, split, target, sign, num_images)
    after = with_attributes(before, dict.fromkeys(attributes.parts(target), sign > 0))

    def images_at(rows: slice, when: Float[Tensor, " n"]) -> Float[Tensor, "n 3 64 64"]:
        share = (when / (NUM_MOMENTS - 1))[:, None]
        factors = torch.lerp(before.factors[rows], after.factors[rows], share.nan_to_num(0))
        one, other = (
            scale(render(People(people.attributes[rows], factors, people.style[rows]))) for people in (before, after)
        )
        return torch.lerp(one, other, share[:, :, None, None])

    return Trajectory(*scored(session, scorers, images_at, NUM_MOMENTS, num_images), images_at)


def people_without(faces: ProceduralFaces, split: str, target: str, sign: float, num_images: int) -> People:
    """The first people of a split (of all, the test split's) who lack what is wanted, or a part of it.

    Raises:
        ValueError: there are too few.
    """
    *_, seed, correlation = faces.settings
    crowd = people_of(split if split in SPLITS else SPLITS[-1], torch.arange(MAX_LOOKED_AT), seed, correlation)
    columns = [attributes.find(part, attributes.CELEBA) for part in attributes.parts(target)]
    lacks = ((crowd.attributes[:, columns] > 0.5) != (sign > 0)).any(dim=1).nonzero().squeeze(1)
    if len(lacks) < num_images:
        raise ValueError(
            f"limits=[drawn]: {len(lacks)} of {MAX_LOOKED_AT} people could get {target}; lower num_images={num_images}"
        )
    return crowd[lacks[:num_images]]


def optimum(
    session: Session,
    scorers: Mapping[str, Scorer],
    target: str,
    sign: float,
    noise: Float[Tensor, "n z_dim"],
) -> Trajectory:
    """The noise near the prior whose image the judge sees gain so much at the least change of all else.

    A cheat, since the judge that scores it is the one that it was found by, and part of it is what fools that judge.
    For each of some rising gains, up to the last level or the flip, Adam descends along the mean |Δ|/σ of the judge's
    other attributes and the missing gain's square; of the starts around each image the best is taken.
    """
    scorer = scorers["judge"]
    noise = noise.float()
    random = torch.Generator().manual_seed(0)
    starts = [noise]
    free = num_free(session.networks.generator)
    for _ in range(NUM_STARTS - 1):
        starts.append(noise.clone())
        starts[-1][:, :free] += SPREAD * torch.randn(len(noise), free, generator=random)
    parts = [slice(first, first + MAX_ROWS) for first in range(0, len(noise), MAX_ROWS)]
    paths, costs = [], []
    farthest = _farthest(session, scorer, target, sign, noise)
    aims = torch.arange(1, math.ceil(farthest.max().item() / AIM_STEP) + 1) * AIM_STEP
    with tqdm(total=NUM_STARTS * len(parts) * len(aims), desc="Looking for the optimum", leave=False) as bar:
        for start in starts:
            found = []
            for part in parts:
                own = aims[:, None].minimum(farthest[part])
                found.append(_descend(session, scorer, target, sign, noise[part], start[part], own, bar))
            paths.append(torch.cat([path for path, _ in found], dim=1))
            costs.append(torch.cat([cost for _, cost in found], dim=0))
    best = torch.stack(costs).argmin(dim=0)
    path = torch.stack(paths)[best, :, torch.arange(len(noise))].transpose(0, 1)
    at = images_of(session, path)
    return Trajectory(*scored(session, scorers, at, len(path), len(noise)), at, path)


@torch.no_grad()
def _farthest(
    session: Session, scorer: Scorer, target: str, sign: float, noise: Float[Tensor, "n z_dim"]
) -> Float[Tensor, " n"]:
    """The gain that each image is to have at the end, in σ: a step beyond the last level and its flip."""
    generator = frozen(session.networks.generator, torch.float32, session.device)
    images = torch.cat([generator(z.to(session.device)).cpu() for z in noise.split(MAX_ROWS)])
    column = attributes.find(target, scorer.judge.names)
    to_flip = -sign * scorer.judge.logits(images)[:, column] / scorer.sigma[column]
    return (to_flip.clamp_min(LAST_LEVEL) + AIM_STEP).clamp_max(MAX_AIM)


def _descend(
    session: Session,
    scorer: Scorer,
    target: str,
    sign: float,
    before: Float[Tensor, "n z_dim"],
    start: Float[Tensor, "n z_dim"],
    aims: Float[Tensor, "aims n"],
    bar: tqdm,
) -> tuple[Float[Tensor, "moments n z_dim"], Float[Tensor, " n"]]:
    """The noise at the start and at each aim, and what it cost over all aims."""
    generator = frozen(session.networks.generator, torch.float32, session.device)
    judge, names = scorer.judge.network, scorer.judge.names
    sigma = scorer.sigma.to(session.device)
    column = attributes.find(target, names)
    others = [names.index(name) for name in attributes.others_of(target, names)]
    free = num_free(generator)
    norms = reference_noise(generator)[:, :free].norm(dim=1)
    least, most = norms.quantile(torch.tensor([0.5 - SHELL / 2, 0.5 + SHELL / 2])).tolist()
    with torch.no_grad():
        at_first = judge(generator(before.to(session.device)))
    z = start[:, :free].to(session.device).clone().requires_grad_()
    told = start[:, free:].to(session.device)  # a condition stays
    adam = torch.optim.Adam([z], lr=LEARNING_RATE)

    def costs(aim: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        change = (judge(generator(torch.cat([z, told], dim=1))) - at_first) / sigma
        missing = (aim - sign * change[:, column]).clamp_min(0)
        return change[:, others].abs().mean(dim=1) + SHORTFALL_WEIGHT * missing.square()

    path, total = [before], torch.zeros(len(before))
    with torch.enable_grad():
        for aim in aims.to(session.device):
            for _ in range(STEPS_PER_AIM):
                adam.zero_grad()
                costs(aim).sum().backward()
                adam.step()
                with torch.no_grad():
                    z.copy_(unit(z) * z.norm(dim=1, keepdim=True).clamp(least, most))
            path.append(torch.cat([z.detach(), told], dim=1).cpu())
            with torch.no_grad():
                total += costs(aim).cpu()
            bar.update()
    return torch.stack(path), total
