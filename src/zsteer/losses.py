"""Objectives as pure functions: what GANs and classifiers minimise, and what steering climbs."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def bce_discriminator(real: Float[Tensor, " n"], fake: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """−log D(x) − log(1 − D(G(z))), means over the batch, of logits (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def bce_generator(fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The non-saturating −log D(G(z)), mean over the batch, of logits (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def r1_penalty(real: Float[Tensor, " n"], real_images: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """‖∇ₓ D(x)‖², mean over real images that require gradients (Mescheder et al. 2018, eq. 9, without γ/2)."""
    (gradient,) = torch.autograd.grad(real.sum(), real_images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def attribute_loss(
    outputs: Float[Tensor, "n k"], targets: Float[Tensor, "n k"], continuous: Bool[Tensor, " k"]
) -> Float[Tensor, ""]:
    """Mean over images and outputs of the binary cross entropy, or of (o − t)² / 2 where the target is continuous."""
    labelled = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    return torch.where(continuous, (outputs - targets).square() / 2, labelled).mean()


def steering_score(
    logits: Float[Tensor, "rows k"],
    start: Float[Tensor, "rows k"],
    target: Int[Tensor, " rows"],
    sign: Float[Tensor, " rows"],
    penalty_weight: Float[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    """±c[t] − λ ‖c[o] − c₀[o]‖₂ of each row, o being all attributes but its target t: the tutorial's objective.

    The norm has a kink at zero change, where its gradient counts as 0; so `start` must be the very logits of the first
    step, not the same images scored in another batch.
    """
    wanted = target[:, None]
    change = (logits - start).scatter(1, wanted, 0.0)
    return sign * logits.gather(1, wanted).squeeze(1) - penalty_weight * torch.linalg.vector_norm(change, dim=1)
