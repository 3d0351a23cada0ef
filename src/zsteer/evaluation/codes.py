"""What each number of a generator's noise does: how much, to what a judge sees, and how far it means one thing."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.evaluation.disentanglement import Regressor, importances_of, intervals, measures
from zsteer.events import Events
from zsteer.files import is_main_process, write_json, write_table
from zsteer.networks.conditional import ConditionalGenerator, condition_of
from zsteer.networks.inference import BATCH_SIZE, best_device, check_finite, frozen, noise_of, num_free, pooled_features
from zsteer.networks.loading import load_classifier, load_network, try_generator
from zsteer.pictures import Png, save_picture, sheet, to_uint8
from zsteer.results import Result
from zsteer.settings import MAX_SEED, whole_number
from zsteer.steering.metrics import sigma_of

NUM_BASES = 16  # faces that are moved along each number of the noise
FARTHEST = 2.0  # how far, in the prior's standard deviations
NUM_FRAMES = 9  # on the way, of a strip too
NUM_STRIPS = 10  # of the picture
STEP = 1e-2  # between the two images of a path's length, as a share of the path
NUM_PATHS = 512
PICTURE = "traversals.png"
RANKS = ("first", "second", "third")


@dataclass(frozen=True, repr=False)
class Codes(Result):
    """Each number of the noise, and what is measured of all.

    Args:
        table: a row for each number, the most active first: its activeness (the variance of the pixels, in [-1, 1], as
            it goes from −2 to 2), and the three attributes that the judge sees change most on the way, in σ.
        strips: one face as each of the first ten goes so.
    """

    metrics: dict[str, Any]
    table: pd.DataFrame
    strips: Png

    @property
    def picture(self) -> Image.Image:
        """The strips."""
        return Image.open(io.BytesIO(self.strips.data))

    def write(self, folder: Path) -> None:
        """Write `codes.csv`, `traversals.png`, events, and `metrics.json`."""
        write_table(folder / "codes.csv", self.table, "%.4f")
        save_picture(folder / PICTURE, self.strips)
        events = Events()
        events.image("traversals", self.strips, 0)
        for name, value in self.metrics.items():
            if isinstance(value, float):
                events.scalar(name, value, 0)
        events.save(folder)
        write_json(folder / "metrics.json", self.metrics)

    def report(self, folder: Path) -> str:
        """The first numbers, the figures, and where the picture is."""
        return f"{self}\n  {folder / PICTURE}"

    def __str__(self) -> str:
        figures = "\n".join(f"{name}: {value}" for name, value in self.metrics.items())
        return f"{self.table.head(NUM_STRIPS).to_csv(index=False, float_format='%.3f')}\n{figures}"


@torch.no_grad()
def score_codes(cfg: DictConfig, folder: Path | None) -> Codes:
    """What each number of a generator's noise does in the judge's eyes, and how far it means one thing.

    Raises:
        ValueError, FileNotFoundError: a network does not fit, or the judge lacks one of `attributes`.
    """
    whole_number(cfg.num_images, "num_images", 100)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    device = best_device()
    generator = load_network(cfg.generator, "generator")
    images = try_generator(generator)
    factor = cfg.judge.regressor.attributes[0] if cfg.judge.get("regressor") else None  # joins all of them
    judge = load_classifier(cfg.judge, "judge", images, factor)
    wanted = judge.names if cfg.attributes is None else cfg.attributes
    columns = [attributes.find(name, judge.names, "attributes", "the judge") for name in wanted]
    labels = np.array([judge.names[column] not in judge.factors for column in columns])
    regressor = tried_regressor(cfg.regressor)
    noise = noise_of(generator, cfg.num_images, cfg.seed)
    generator, network = (frozen(each, torch.float32, device) for each in (generator, judge.network))
    seen = logits_of(generator, network, noise, "Looking at samples")
    check_finite("judge", seen)
    sigma = sigma_of(seen)
    codes, factors = noise.double().numpy(), (seen.double() / sigma).numpy()[:, columns]
    codes = (codes - codes.mean(axis=0)) / np.maximum(codes.std(axis=0), np.finfo(float).tiny)
    found = vars(measures(codes, factors, labels, regressor))
    apart = intervals(codes, factors, labels, regressor)
    bases = noise[:NUM_BASES].to(device)
    activeness = activeness_of(generator, bases)
    order = activeness.argsort(descending=True).tolist()
    effects = effects_of(generator, network, bases, sigma, order)
    names = code_names(generator)
    table = pd.DataFrame(
        [
            [names[code], activeness[code].item(), *largest(effect, judge.names)]
            for code, effect in zip(order, effects, strict=True)
        ],
        columns=["code", "activeness", *(title for rank in RANKS for title in (rank, f"{rank}_change"))],
    )
    metrics = {
        "what": cfg.what,
        "num_images": cfg.num_images,
        "seed": cfg.seed,
        "num_codes": codes.shape[1],
        "num_factors": len(columns),
        "regressor": str(regressor()),
        **found,
        **{f"{name}_interval": half for name, half in apart.items()},
        "path_length_judge": path_length(generator, network, cfg.seed),
    }
    scored = Codes(metrics, table, strips(generator, bases[:1], order, effects, judge.names))
    if folder is not None and is_main_process():
        scored.write(folder)
    return scored


def tried_regressor(section: DictConfig) -> Regressor:
    """What makes a regressor, which has been tried on a few numbers.

    Raises:
        ValueError: it is none, takes other settings, or does not say what matters to it.
    """
    make = instantiate(section, _partial_=True)
    numbers = np.random.default_rng(0).standard_normal((20, 2))
    try:
        importances_of(numbers, numbers[:, :1], make)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"regressor={section._target_} must be one of scikit-learn's that has coef_ or feature_importances_, with "
            f"settings of its own: {str(error).splitlines()[0]}"
        ) from error
    return make


def logits_of(
    generator: nn.Module, network: nn.Module, noise: Float[Tensor, "n z_dim"], what: str | None = None
) -> Float[Tensor, "n k"]:
    """What a judge sees in the images of noise; a bar of progress says `what`."""
    device = next(network.parameters()).device
    parts = tqdm(noise.split(BATCH_SIZE), what, leave=False, disable=what is None)
    return torch.cat([network(generator(part.to(device))).cpu() for part in parts])


def code_names(generator: nn.Module) -> list[str]:
    """The numbers of a generator's noise, from 0, and what its condition is of."""
    return [*map(str, range(num_free(generator))), *condition_of(generator)]


def ends_of(generator: nn.Module) -> Float[Tensor, "2 z_dim"]:
    """Where each number of the noise is moved to: −2 and 2, or the ends of what a condition has in the data."""
    ends = torch.tensor([[-FARTHEST], [FARTHEST]]).repeat(1, num_free(generator))
    return torch.cat([ends, generator.bounds.cpu()], dim=1) if isinstance(generator, ConditionalGenerator) else ends


@torch.no_grad()
def activeness_of(
    generator: nn.Module, bases: Float[Tensor, "m z_dim"], num_frames: int = NUM_FRAMES
) -> Float[Tensor, " d"]:
    """How much the pixels of some faces vary as each number of their noise goes from end to end, the others staying."""
    codes = tqdm(range(bases.shape[1]), "Moving each number", leave=False)
    return torch.stack([on_the_way(generator, bases, code, num_frames).var(dim=0).mean().cpu() for code in codes])


@torch.no_grad()
def effects_of(
    generator: nn.Module,
    network: nn.Module,
    bases: Float[Tensor, "m z_dim"],
    sigma: Float[Tensor, " k"],
    codes: Sequence[int],
) -> Float[Tensor, "d k"]:
    """What a judge sees change as some numbers of the noise go from end to end, in σ, a mean over the faces."""
    effects = []
    for code in tqdm(codes, "Looking at each number's ends", leave=False):
        first, last = (network(images).cpu() for images in on_the_way(generator, bases, code, 2))
        effects.append(((last - first) / sigma).mean(dim=0))
    return torch.stack(effects)


def on_the_way(
    generator: nn.Module, bases: Float[Tensor, "m z_dim"], code: int, num_frames: int
) -> Float[Tensor, "f m 3 h w"]:
    """Images as a number of their noise goes from end to end."""
    least, most = ends_of(generator)
    moved = bases.repeat(num_frames, 1, 1)
    moved[:, :, code] = torch.linspace(least[code].item(), most[code].item(), num_frames)[:, None]
    return generator(moved.flatten(0, 1)).unflatten(0, (num_frames, -1))


@torch.no_grad()
def strips(
    generator: nn.Module,
    base: Float[Tensor, "1 z_dim"],
    codes: Sequence[int],
    effects: Float[Tensor, "d k"],
    names: Sequence[str],
) -> Png:
    """One face as the first of some numbers go from end to end, labelled by what the judge sees change most."""
    titles, lines = code_names(generator), []
    for code, effect in zip(codes[:NUM_STRIPS], effects, strict=False):
        frames = to_uint8(on_the_way(generator, base, code, NUM_FRAMES)[:, 0]).cpu()
        label = strip_label(titles[code], effect, names)
        lines.append((label, [frame.permute(1, 2, 0).numpy() for frame in frames]))
    return sheet(lines)


def largest(effect: Float[Tensor, " k"], names: Sequence[str]) -> list[Any]:
    """The three attributes that change most, and by how much."""
    columns = effect.abs().topk(min(len(RANKS), len(names))).indices.tolist()
    cells = [cell for column in columns for cell in (names[column], effect[column].item())]
    return cells + [None] * (2 * len(RANKS) - len(cells))


def strip_label(name: str, effect: Float[Tensor, " k"], names: Sequence[str]) -> str:
    """A number, and what changes most as it grows."""
    column = int(effect.abs().argmax())
    return f"{name}\n{names[column]} {effect[column]:+.1f} σ"


def path_length(generator: nn.Module, network: nn.Module, seed: int) -> float:
    """Mean squared distance of the judge's features for a small step between two samples, over the step's square.

    As in Karras et al. 2019, section 4.1, there with VGG's features; two samples are 1 apart on average.

    A step is a hundredth of the great circle between the noise of both, from a random place on it; the condition stays.
    """
    device = next(network.parameters()).device
    random = torch.Generator().manual_seed(seed)
    one, other = noise_of(generator, 2 * NUM_PATHS, random).chunk(2)
    free = num_free(generator)
    place = torch.rand(NUM_PATHS, 1, generator=random) * (1 - STEP)

    def features(share: Float[Tensor, "n 1"]) -> Float[Tensor, "n f"]:
        between = torch.cat([slerp(one[:, :free], other[:, :free], share), one[:, free:]], dim=1)
        parts = [pooled_features(network, generator(z.to(device)))[0].cpu() for z in between.split(BATCH_SIZE)]
        return torch.cat(parts)

    here, ahead = features(place), features(place + STEP)
    usual = torch.pdist(here).mean()
    return (((ahead - here).norm(dim=1) / usual / STEP) ** 2).mean().item()


def slerp(one: Float[Tensor, "n z"], other: Float[Tensor, "n z"], share: Float[Tensor, "n 1"]) -> Float[Tensor, "n z"]:
    """Points between pairs of vectors on their great circle (Shoemake 1985)."""
    angle = torch.cosine_similarity(one, other, dim=1).clamp(-1, 1).arccos()[:, None]
    return (((1 - share) * angle).sin() * one + (share * angle).sin() * other) / angle.sin()
