"""What GANs minimise: pure functions of the discriminator's logits, and penalties on its slope."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


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
