"""How far apart two images are: in pixels, and in the features of a classifier."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zsteer.networks.inference import pooled_features


@dataclass(frozen=True)
class FeatureSpace:
    """A frozen classifier's features φ, in which two random samples of a generator are 1 apart on average."""

    network: nn.Module
    scale: float

    @classmethod
    def over(cls, samples: Float[Tensor, "m 3 h w"], network: nn.Module, role: str) -> "FeatureSpace":
        """The features of a classifier, in the unit of some samples.

        Raises:
            ValueError: it has none, or they are the same for all samples, or NaN.
        """
        apart = torch.pdist(pooled_features(network, samples, role)[0]).mean().item()
        return cls(network, positive(apart, f"{role}.network sees no difference between this generator's images"))

    def look(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """φ(x), and the logits."""
        return pooled_features(self.network, images)

    def distance(self, one: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """How far apart the features of pairs of images are."""
        return (one - other).norm(dim=1) / self.scale


@dataclass(frozen=True)
class Distance:
    """L(x, y) = mean |x − y| / p + w · ‖φ(x) − φ(y)‖ / f, p and f being what these are on average of two samples."""

    space: FeatureSpace
    pixel_scale: float
    feature_weight: float

    @classmethod
    def over(cls, samples: Float[Tensor, "m 3 h w"], space: FeatureSpace, feature_weight: float) -> "Distance":
        """The distance in the unit of some samples.

        Raises:
            ValueError: they are all the same, or have NaN.
        """
        apart = torch.pdist(samples.flatten(1), p=1).mean().item() / samples[0].numel()
        return cls(space, positive(apart, "generator.network gives the same image for all noise"), feature_weight)

    def pairs(
        self, images: Float[Tensor, "n 3 h w"], given: Float[Tensor, "n 3 h w"], features: Float[Tensor, "n d"]
    ) -> Float[Tensor, " n"]:
        """L of each image and the picture in its place, whose features are known."""
        pixels = (images - given).abs().mean(dim=(1, 2, 3))
        return self._sum(pixels, self.space.distance(self.space.look(images)[0], features))

    def table(
        self, images: Float[Tensor, "n 3 h w"], given: Float[Tensor, "m 3 h w"], features: Float[Tensor, "m d"]
    ) -> Float[Tensor, "m n"]:
        """L of each picture and each image."""
        pixels = torch.cdist(given.flatten(1), images.flatten(1), p=1) / images[0].numel()
        return self._sum(pixels, torch.cdist(features, self.space.look(images)[0]) / self.space.scale)

    def _sum(self, pixels: Tensor, features: Tensor) -> Tensor:
        return pixels / self.pixel_scale + self.feature_weight * features


def positive(apart: float, otherwise: str) -> float:
    """How far apart two samples are.

    Raises:
        ValueError: not at all, or NaN.
    """
    if not 0 < apart < float("inf"):
        raise ValueError(f"{otherwise} (or NaN); use another")
    return apart
