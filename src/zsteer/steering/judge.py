"""The judge at work: a second classifier that took no part in the steering."""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from zsteer.networks.inference import frozen
from zsteer.networks.loading import NamedClassifier


class Judge:
    """A classifier that scores images on a device; what it said is kept, for many jobs start from the same images."""

    def __init__(self, classifier: NamedClassifier, device: torch.device):
        self.names, self.factors = classifier.names, classifier.factors
        self.network, self.device = frozen(classifier.network, torch.float32, device), device
        self._known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def logits(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """
        Raises:
            ValueError: some are NaN or infinite.
        """
        key = hashlib.sha256(images.numpy().tobytes()).digest()
        if key not in self._known:
            self._known[key] = self.network(images.to(self.device)).cpu()
        check_finite("judge", self._known[key])
        return self._known[key]


def check_finite(role: str, logits: Tensor) -> None:
    """
    Raises:
        ValueError: some are NaN or infinite.
    """
    if not logits.isfinite().all():
        remedy = "use another, or judge=none" if role == "judge" else "use another"
        raise ValueError(f"{role}.network gives NaN or infinite logits for this generator's images; {remedy}")
