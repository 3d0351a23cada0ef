"""What an attribute classifier minimises."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def attribute_loss(
    outputs: Float[Tensor, "n k"],
    targets: Float[Tensor, "n k"],
    continuous: Bool[Tensor, " k"],
    rates: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over images and outputs of the binary cross entropy, or of (o − t)² / 2 where the target is continuous.

    Args:
        rates: how often each label is 1; with them an image counts 1 / 2p where it is and 1 / 2(1 − p) where it is not,
            so that both states of a label weigh the same.
    """
    labelled = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    if rates is not None:
        labelled = labelled / (2 * torch.where(targets > 0.5, rates, 1 - rates))
    return torch.where(continuous, (outputs - targets).square() / 2, labelled).mean()
