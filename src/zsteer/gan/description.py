"""What a classifier sees of an image, as standard normal numbers that a GAN's two networks can be told."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import OmegaConf
from torch import Tensor
from tqdm import tqdm

from zsteer.data.attributes import steerable
from zsteer.data.faces import FaceData, scale
from zsteer.gan.quantiles import normal_quantile, share_below
from zsteer.networks.inference import frozen
from zsteer.networks.loading import load_classifier
from zsteer.settings import real_number, whole_number

NUM_IMAGES = 4096  # of the data, over which the numbers are standard normal
MOST_IMAGES = 100_000  # of the data, to learn from how they are distributed
FEWEST_STEPS = 20  # that a learning rate can rise and fall in
BATCH_SIZE = 256


class Description:
    """What a classifier sees of an image, as numbers that are standard normal and uncorrelated over the data.

    Each of the classifier's outputs becomes the quantile of a normal distribution that it is over the data (a Gaussian
    copula), and these become uncorrelated by R^(−½), R being their correlations: of all such numbers those that are
    the nearest to what they were (ZCA-cor; Kessy et al. 2018). So number k is of attribute k. What they still have in
    common is left to the flow of a `DescribedGenerator`, which draws them from noise. An image's neighbours in what a
    network sees of it are told apart likewise by Casanova et al. 2021 ("Instance-Conditioned GAN").

    Args:
        classifier: a config's section, as of `steer`; its regressor's outputs come last.
        layers, width, num_steps, dropout: of the flow: its couplings, the hidden units of each, the steps that fit it,
            and the share of hidden units that each step leaves out.

    Raises:
        ValueError: one of the last four is no number, or out of its range.
    """

    def __init__(
        self,
        classifier: Mapping[str, Any],
        layers: int = 16,
        width: int = 96,
        num_steps: int = 3000,
        dropout: float = 0.0,
    ):
        for name, number, least in (("layers", layers, 1), ("width", width, 1), ("num_steps", num_steps, FEWEST_STEPS)):
            whole_number(number, f"gan.description.{name}", least)
        if not 0 <= real_number(dropout, "gan.description.dropout") < 1:
            raise ValueError(f"gan.description.dropout={dropout} must be at least 0 and less than 1")
        self.layers, self.width, self.num_steps, self.dropout = layers, width, num_steps, dropout
        self.section = OmegaConf.create(dict(classifier))
        self.names = steerable(self.section, "classifier")

    @torch.no_grad()
    def prepare(self, data: FaceData) -> None:
        """Look at the data.

        Raises:
            ValueError: over the data, one of the classifier's outputs is a sum of the others, or always the same.
            ValueError, FileNotFoundError: see `load_classifier`.
        """
        last = self.names[-1]  # a regressor's, if there is one, which joins for it
        self._network = load_classifier(self.section, "classifier", data.example, last).network
        seen = self._looked_at(data, self._seen, NUM_IMAGES)
        self._quantiles = seen.sort(dim=0).values
        correlations = self._normal(seen).double().T.corrcoef().reshape(len(self.names), -1)  # of one output a number
        if correlations.isnan().any() or torch.linalg.matrix_rank(correlations, hermitian=True) < len(self.names):
            raise ValueError(
                f"gan.description: in {len(seen)} training images the classifier's {len(self.names)} outputs are not "
                f"independent of each other; give it more images, at least {len(self.names) + 1}, or another classifier"
            )
        variances, axes = torch.linalg.eigh(correlations)
        self._whitening = ((axes * variances.rsqrt()) @ axes.T).float()

    def of_all(self, data: FaceData) -> Float[Tensor, "n k"]:
        """The numbers of the training images, of an even choice where there are very many."""
        return self._looked_at(data, self, MOST_IMAGES)

    @torch.no_grad()
    def _looked_at(self, data: FaceData, look: Callable[[Tensor], Tensor], most: int) -> Float[Tensor, "n k"]:
        """What something makes of the training images, an even choice of them at most."""
        batches = tqdm(data.split_batches("train", BATCH_SIZE, most), desc="Looking at the train images", leave=False)
        return torch.cat([look(scale(images)) for images, _ in batches])

    def _seen(self, images: Tensor) -> Float[Tensor, "n k"]:
        self._network = frozen(self._network, torch.float32, images.device)
        return self._network(images.float())

    def _normal(self, seen: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        self._quantiles = self._quantiles.to(seen)
        return normal_quantile(share_below(self._quantiles, seen))

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """The numbers that describe images, in float32 whatever the training's precision."""
        self._whitening = self._whitening.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return self._normal(self._seen(images)) @ self._whitening
