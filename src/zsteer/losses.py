"""Objectives as pure functions: what GANs and classifiers minimise, and what steering climbs."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zsteer.rows import Rows


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
    logits: Float[Tensor, "rows k"], start: Float[Tensor, "rows k"], rows: Rows
) -> Float[Tensor, " rows"]:
    """±c[t] − λ ‖c[o] − c₀[o]‖₂ of each row, o being the kept logits: the tutorial's objective, which keeps all but t.

    The norm has a kink at zero change, where its gradient counts as 0; so `start` must be the very logits of the first
    step, not the same images scored in another batch.
    """
    change = (logits - start).where(rows.kept, 0.0)
    return rows.wanted(logits) - rows.penalty_weight * torch.linalg.vector_norm(change, dim=1)


def smooth_score(
    logits: Float[Tensor, "rows k"], start: Float[Tensor, "rows k"], sigma: Float[Tensor, " k"], rows: Rows
) -> Float[Tensor, " rows"]:
    """±c[t]/σ[t] − λ/2 · Σₒ ((c[o] − c₀[o]) / σ[o])² of each row, o being the kept logits."""
    change = ((logits - start) / sigma).where(rows.kept, 0.0)
    return rows.wanted(logits / sigma) - rows.penalty_weight / 2 * change.square().sum(dim=1)
