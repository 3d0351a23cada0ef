"""Several classifiers, or several of one's attributes, as one network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class JoinedClassifier(nn.Module):
    """A classifier and a regressor of the same images as one network: logits `[n, K]`, then outputs `[n, L]`.

    Args:
        scale: factor of the regressor's outputs. They are standardised, and logits spread several times as wide; a
            penalty on changes of both should find them alike.
    """

    def __init__(self, classifier: nn.Module, regressor: nn.Module, scale: float = 1.0):
        super().__init__()
        self.classifier, self.regressor, self.scale = classifier, regressor, scale

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return torch.cat([self.classifier(images), self.scale * self.regressor(images)], dim=1)


class Conjunction(nn.Module):
    """A classifier with one logit more, the last: that several of its attributes are there together.

    The probability is that of independent events, Π σ(l) over the attributes' logits l.

    Args:
        columns: of the attributes.
        any_of: the logit is that any of them is there, 1 − Π σ(−l), which an edit that removes them all must lower.
    """

    columns: Tensor

    def __init__(self, classifier: nn.Module, columns: Sequence[int], any_of: bool = False):
        super().__init__()
        self.classifier, self.any_of = classifier, any_of
        self.register_buffer("columns", torch.tensor(columns))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.of(self.classifier(images))

    def of(self, logits: Float[Tensor, "n l"]) -> Float[Tensor, "n k"]:
        """The classifier's logits, wherever they are, and the joint one."""
        sign = -1 if self.any_of else 1
        parts = logits[:, self.columns.to(logits.device)].to(torch.promote_types(logits.dtype, torch.float32))
        all_there = F.logsigmoid(sign * parts).sum(dim=1, keepdim=True)  # log p
        all_there = all_there.clamp_max(-torch.finfo(parts.dtype).tiny)  # 1 − p may not be 0
        joint = sign * (all_there - torch.log(-torch.expm1(all_there)))
        return torch.cat([logits, joint.to(logits.dtype)], dim=1)
