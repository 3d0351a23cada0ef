"""Objectives as pure functions: what GANs and classifiers minimise, and what steering climbs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zsteer.rows import Rows


@dataclass(frozen=True)
class AdversarialLoss:
    """The two objectives of a GAN, of a discriminator's logits.

    Args:
        discriminator: of the logits of real images and of generated ones.
        generator: of the logits of generated images; if `paired`, of theirs and of real images'.
        paired: whether the generator's objective compares with real images.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[..., Tensor]
    paired: bool = False


def bce_discriminator(real: Float[Tensor, " n"], fake: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """−log D(x) − log(1 − D(G(z))), means over the batch, of logits (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def bce_generator(fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The non-saturating −log D(G(z)), mean over the batch, of logits (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def hinge_discriminator(real: Float[Tensor, " n"], fake: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """max(0, 1 − D(x)) + max(0, 1 + D(G(z))), means over the batch (Lim & Ye 2017; Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_discriminator(real: Float[Tensor, " n"], fake: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """D(G(z)) − D(x), means over the batch (Arjovsky et al. 2017, eq. 3); needs a penalty to bound D's slope."""
    return fake.mean() - real.mean()


def critic_generator(fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """−D(G(z)), mean over the batch: the generator's side of the hinge and the Wasserstein loss."""
    return -fake.mean()


def relativistic(ahead: Float[Tensor, " n"], behind: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """softplus(−(a − b)), mean over pairs (Jolicoeur-Martineau 2019; Huang et al. 2024, eq. 2).

    The discriminator's objective of (real, fake), and the generator's of (fake, real).
    """
    return F.softplus(behind - ahead).mean()


def zero_centred_penalty(logits: Float[Tensor, " n"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """‖∇ₓ D(x)‖², mean over images that require gradients, without γ/2.

    R1 on real images, R2 on generated ones (Mescheder et al. 2018, eqs. 9 and 10).
    """
    return _slope(logits, images).square().sum(dim=(1, 2, 3)).mean()


def one_centred_penalty(logits: Float[Tensor, " n"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """(‖∇ₓ D(x)‖ − 1)², mean over images that require gradients.

    WGAN-GP's on points between real and generated images, without λ (Gulrajani et al. 2017, eq. 3).
    """
    return (_slope(logits, images).flatten(1).norm(dim=1) - 1).square().mean()


def _slope(logits: Float[Tensor, " n"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient


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
