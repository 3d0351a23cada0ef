"""How close a generator's samples are to data, in the features of a network that had no part in its training.

Figures of two protocols cannot be compared, so each figure's name ends in its own: whose features, the data's crop and
resize, the split that is the reference, and the number of samples.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from zsteer.data.faces import scale
from zsteer.networks.checkpoints import read
from zsteer.networks.inference import check_finite, frozen, pooled_features
from zsteer.networks.memory import in_parts
from zsteer.pictures import to_uint8

BATCH_SIZE = 256
NUM_NEIGHBOURS = 3  # that precision and recall look at, and so need one image more
FIGURES = ("fid", "kid", "precision", "recall")
SUBSET, MAX_SUBSETS = 1000, 10  # of a kernel distance


@dataclass(frozen=True)
class Embedding:
    """A network in whose features images are compared.

    Args:
        look: maps uint8 images `[n, 3, h, w]` to features `[n, d]` and logits `[n, K]`, K being 0 if it has none.
    """

    name: str
    look: Callable[[Tensor], tuple[Tensor, Tensor]]

    @torch.no_grad()
    def of(self, batches: Iterable) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Features and logits of batches of uint8 images `[m, 3, h, w]`."""

        def joined(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
            features, logits = zip(*parts, strict=True)
            return torch.cat(features), torch.cat(logits)

        return joined(in_parts(lambda part, x=x: self.look(x[part]), len(x), joined) for x in batches)

    def place(self, protocol: str, split: str, num_samples: int) -> str:
        """The end of a figure's name."""
        return f"{self.name}/{protocol}/{split}/{num_samples}"

    def figures(
        self, real: Float[Tensor, "m d"], fake: Float[Tensor, "n d"], protocol: str, split: str, suffix: str = ""
    ) -> dict[str, float]:
        """The figures of `fidelity` by their full names."""
        place = self.place(protocol, split, len(fake))
        return {f"{name}_{place}{suffix}": figure for name, figure in fidelity(real, fake).items()}


def judge_embedding(judge: nn.Module, device: torch.device | str = "cpu") -> Embedding:
    """A judge's last feature map, averaged over the positions."""
    network = frozen(judge, torch.float32, device)
    return Embedding("judge", lambda images: pooled_features(network, scale(images.to(device))))


def inception_embedding(weights: str, device: torch.device | str = "cpu", key: str = "inception") -> Embedding:
    """Inception-v3's pooled features as published figures have them (Heusel et al. 2017), from a file of its weights.

    Raises:
        FileNotFoundError, ValueError: no such file, or one that would run code; or torch-fidelity, whose network it is,
            is not installed.
    """
    if not Path(weights).is_file():
        raise FileNotFoundError(f"{key}={weights}: no such file; torch-fidelity publishes Inception's weights")
    read(Path(weights), f"{key}={weights}")  # which refuses what torch-fidelity would run
    try:
        # Without antialiasing: the resize of the published figures, whose features of another resize differ.
        distance = FrechetInceptionDistance(2048, feature_extractor_weights_path=weights, antialias=False)
    except ModuleNotFoundError as error:
        raise ValueError(f"{key}={weights} needs torch-fidelity: pip install 'zsteer[inception]'") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise ValueError(f"{key}={weights} does not hold the weights of torch-fidelity's Inception") from error
    network = distance.inception.to(device)
    return Embedding("inception", lambda images: (network(images.to(device)), torch.empty(len(images), 0)))


def require_enough(features: Float[Tensor, "n d"], split: str) -> Float[Tensor, "n d"]:
    """The features of a split.

    Raises:
        ValueError: of too few images for these figures.
    """
    if len(features) <= NUM_NEIGHBOURS:
        raise ValueError(f"the data's {split} split has {len(features)} images; FID and the like need more than 3")
    return features


def samples_of(generator: nn.Module, noise: Float[Tensor, "n z_dim"]) -> Iterator[UInt8[Tensor, "m c h w"]]:
    """A generator's images of some noise, in batches.

    Raises:
        ValueError: they are NaN or infinite.
    """

    def of(z: Tensor) -> Tensor:
        images = generator(z)
        check_finite("generator", images)
        return to_uint8(images)

    return (in_parts(lambda part, z=z: of(z[part]), len(z), torch.cat) for z in noise.split(BATCH_SIZE))


def fidelity(real: Float[Tensor, "m d"], fake: Float[Tensor, "n d"]) -> dict[str, float]:
    """FID, KID, precision and recall of generated features against real ones."""
    values = frechet_distance(real, fake), kernel_distance(real, fake), *precision_recall(real, fake)
    return dict(zip(FIGURES, values, strict=True))


def frechet_distance(real: Float[Tensor, "m d"], fake: Float[Tensor, "n d"]) -> float:
    """‖μ − μ'‖² + tr(Σ + Σ' − 2 (Σ Σ')^½) (Heusel et al. 2017, eq. 6); biased upwards, the more the fewer samples."""
    given = nn.Identity()
    given.num_features = real.shape[1]  # pyright: ignore  (which torchmetrics asks for)
    distance = FrechetInceptionDistance(feature=given, sync_on_compute=False).to(real.device).set_dtype(torch.float64)
    distance.update(real.double(), real=True)
    distance.update(fake.double(), real=False)
    return distance.compute().item()


def kernel_distance(real: Float[Tensor, "m d"], fake: Float[Tensor, "n d"]) -> float:
    """KID (Bińkowski et al. 2018): the mean unbiased MMD² over at most ten pairs of equal parts of both."""
    size = min(SUBSET, len(real), len(fake))
    reals, fakes = ([part for part in whole.double().split(size) if len(part) == size] for whole in (real, fake))
    num = min(MAX_SUBSETS, max(len(reals), len(fakes)))
    return sum(poly_mmd(reals[i % len(reals)], fakes[i % len(fakes)]).item() for i in range(num)) / num


def precision_recall(real: Float[Tensor, "m d"], fake: Float[Tensor, "n d"]) -> tuple[float, float]:
    """Share of generated features on the real manifold, and of real ones on the generated (Kynkäänniemi et al. 2019).

    A manifold is the union of balls around its features, each reaching to its third nearest neighbour.
    """
    return _on_manifold(fake, real).double().mean().item(), _on_manifold(real, fake).double().mean().item()


def _on_manifold(features: Float[Tensor, "n d"], manifold: Float[Tensor, "m d"]) -> Bool[Tensor, " n"]:
    # Each is its own nearest neighbour, at distance 0.
    nearest = [torch.cdist(part, manifold).kthvalue(NUM_NEIGHBOURS + 1).values for part in manifold.split(BATCH_SIZE)]
    radii = torch.cat(nearest)
    return torch.cat([(torch.cdist(part, manifold) <= radii).any(dim=1) for part in features.split(BATCH_SIZE)])
