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

    A target that is NaN is missing, and counts nowhere; the mean is over those of this process's part of the batch.

    Args:
        rates: how often each label is 1; with them an image counts 1 / 2p where it is and 1 / 2(1 − p) where it is not,
            so that both states of a label weigh the same.
    """
    known = ~targets.isnan()
    targets = targets.where(known, 0)  # or the gradient of what is left out would be NaN
    labelled = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    if rates is not None:
        labelled = labelled / (2 * torch.where(targets > 0.5, rates, 1 - rates))
    losses = torch.where(continuous, (outputs - targets).square() / 2, labelled)
    # The mean over all targets times a factor, which is 1 where none is missing.
    return losses.where(known, 0).mean() * (known.numel() / known.sum().clamp_min(1))
