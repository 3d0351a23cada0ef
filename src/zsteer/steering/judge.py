"""The judge at work: a second classifier that took no part in the steering."""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from zsteer.networks.inference import check_finite, frozen
from zsteer.networks.loading import NamedClassifier
from zsteer.networks.memory import in_parts


class Judge:
    """A classifier that scores images on a device; what it said is kept, for many jobs start from the same images."""

    def __init__(self, classifier: NamedClassifier, device: torch.device, role: str = "judge"):
        self.names, self.factors, self.role = classifier.names, classifier.factors, role
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
            check_finite("generator", images)
            self._known[key] = in_parts(
                lambda part: self.network(images[part].to(self.device)).cpu(), len(images), torch.cat
            )
        check_finite(self.role, self._known[key])
        return self._known[key]
