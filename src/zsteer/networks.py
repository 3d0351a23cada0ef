"""Generators, discriminators and classifiers; and how a trained network is frozen for steering.

A generator maps noise `[n, z_dim]` to images `[n, 3, H, W]` in [-1, 1]; a discriminator maps images to logits `[n]`; a
classifier maps images to logits `[n, K]`.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# How a config says which optimizer: a class of torch.optim with everything set but the parameters.
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

LEAKY_SLOPE = 0.2  # of every LeakyReLU here (Radford et al. 2016)


class Generator(nn.Module):
    """The tutorial's generator: five transposed convolutions from noise `[n, z_dim]` to 64×64 images in [-1, 1]."""

    def __init__(self, z_dim: int = 64, im_chan: int = 3, hidden_dim: int = 64):
        super().__init__()
        self.z_dim = z_dim
        h = hidden_dim
        self.gen = nn.Sequential(
            self.block(z_dim, 8 * h),
            self.block(8 * h, 4 * h),
            self.block(4 * h, 2 * h),
            self.block(2 * h, h),
            nn.Sequential(nn.ConvTranspose2d(h, im_chan, kernel_size=4, stride=2), nn.Tanh()),
        )

    @staticmethod
    def block(channels_in: int, channels_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.ConvTranspose2d(channels_in, channels_out, kernel_size=3, stride=2),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n c h w"]:
        return self.gen(noise[:, :, None, None])


class DCGANGenerator(nn.Module):
    """The standard 64×64 DCGAN generator (Radford et al. 2016), laid out in `main` as PyTorch's example has it."""

    def __init__(self, z_dim: int = 100, im_chan: int = 3, hidden_dim: int = 64):
        super().__init__()
        self.z_dim = z_dim
        widths = [8 * hidden_dim, 4 * hidden_dim, 2 * hidden_dim, hidden_dim]
        layers = [nn.ConvTranspose2d(z_dim, widths[0], 4, stride=1, padding=0, bias=False)]
        for width, following in zip(widths, [*widths[1:], im_chan], strict=True):
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(width, following, 4, stride=2, padding=1, bias=False)]
        self.main = nn.Sequential(*layers, nn.Tanh())

    def forward(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n c 64 64"]:
        return self.main(noise[:, :, None, None])


class Discriminator(nn.Module):
    """A DCGAN discriminator of 64×64 images, without normalisation: with R1 it is stable where batch norm collapses."""

    def __init__(self, im_chan: int = 3, hidden_dim: int = 64):
        super().__init__()
        widths = [im_chan, hidden_dim, 2 * hidden_dim, 4 * hidden_dim, 8 * hidden_dim]
        layers: list[nn.Module] = []
        for channels_in, channels_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)]
            layers += [nn.LeakyReLU(LEAKY_SLOPE, inplace=True)]
        self.disc = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, kernel_size=4))

    def forward(self, images: Float[Tensor, "n c 64 64"]) -> Float[Tensor, " n"]:
        return self.disc(images).flatten()


class Classifier(nn.Module):
    """The tutorial's classifier of 64×64 images: four strided convolutions to logits `[n, n_classes]`."""

    def __init__(self, im_chan: int = 3, n_classes: int = 40, hidden_dim: int = 64):
        super().__init__()
        h = hidden_dim
        self.classifier = nn.Sequential(
            self.block(im_chan, h, stride=2),
            self.block(h, 2 * h, stride=2),
            self.block(2 * h, 4 * h, stride=3),
            nn.Sequential(nn.Conv2d(4 * h, n_classes, kernel_size=4, stride=2)),
        )

    @staticmethod
    def block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=stride),
            nn.BatchNorm2d(channels_out),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        )

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(images).flatten(1)


class ResidualClassifier(nn.Module):
    """A small ResNet (He et al. 2016) with group norm (Wu & He 2018) and SiLU.

    The bundled judge: it shares neither layers, normalisation nor activation with the tutorial's classifier, so that
    what fools the one need not fool the other.
    """

    def __init__(self, im_chan: int = 3, n_classes: int = 40, hidden_dim: int = 32):
        super().__init__()
        h = hidden_dim
        self.features = nn.Sequential(
            nn.Conv2d(im_chan, h, kernel_size=3, stride=2, padding=1),
            ResidualBlock(h, 2 * h),
            ResidualBlock(2 * h, 4 * h),
            ResidualBlock(4 * h, 8 * h),
        )
        self.head = nn.Linear(8 * h * 4 * 4, n_classes)

    def forward(self, images: Float[Tensor, "n c 64 64"]) -> Float[Tensor, "n k"]:
        return self.head(self.features(images).flatten(1))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions that halve the resolution, beside a pooled 1×1 shortcut."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(8, channels_out),
            nn.SiLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.GroupNorm(8, channels_out),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels_in, channels_out, 1))
        self.activation = nn.SiLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h2 w2"]:
        return self.activation(self.body(x) + self.shortcut(x))


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

    def __init__(self, classifier: nn.Module, columns: Sequence[int], any_of: bool = False):
        super().__init__()
        self.classifier, self.any_of = classifier, any_of
        self.register_buffer("columns", torch.tensor(columns))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        logits = self.classifier(images)
        sign = -1 if self.any_of else 1
        parts = logits[:, self.columns].to(torch.promote_types(logits.dtype, torch.float32))
        all_there = F.logsigmoid(sign * parts).sum(dim=1, keepdim=True)  # log p
        all_there = all_there.clamp_max(-torch.finfo(parts.dtype).tiny)  # 1 − p may not be 0
        joint = sign * (all_there - torch.log(-torch.expm1(all_there)))
        return torch.cat([logits, joint.to(logits.dtype)], dim=1)


def pooled_features(
    network: nn.Module, images: Float[Tensor, "n 3 h w"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
    """A classifier's last feature map of more than one position, averaged over the positions; and its logits."""
    maps: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            maps[:] = [output]

    handles = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        logits = network(images)
    finally:
        for handle in handles:
            handle.remove()
    if not maps:
        raise ValueError(
            f"judge.network={type(network).__name__} has no feature map to compare images by; use judge=none"
        )
    return maps[0].mean(dim=(2, 3)), logits


def z_dim_of(generator: Any) -> int:
    """The length of the noise vectors that a generator takes.

    Raises:
        ValueError: it does not say.
    """
    z_dim = getattr(generator, "z_dim", None)
    if not isinstance(z_dim, int):
        raise ValueError(f"generator.network={type(generator).__name__} must have an integer attribute z_dim")
    return z_dim


def frozen(network: nn.Module, dtype: torch.dtype, device: torch.device | str = "cpu") -> nn.Module:
    """A copy of `network` for inference: eval mode, no gradients for weights, batch norm folded into convolutions.

    Folding is done in float64, so that in float64 the copy equals the original to rounding. What such a copy is frozen
    as again is the copy itself.
    """
    form = (dtype, torch.device(device))
    if getattr(network, "frozen_form", None) == form:
        return network
    network = copy.deepcopy(network).eval().requires_grad_(False).double()
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_batch_norm(module)
    network = network.to(device, dtype).to(memory_format=torch.channels_last)
    network.__dict__["frozen_form"] = form  # beside parameters and submodules
    return network


def _fold_batch_norm(layers: nn.Sequential) -> None:
    for i in range(len(layers) - 1):
        conv, norm = layers[i], layers[i + 1]
        # Of just these classes: subclasses compute something else, and so may hooks, which spectral norm hangs on.
        if type(conv) not in (nn.Conv2d, nn.ConvTranspose2d) or type(norm) is not nn.BatchNorm2d:
            continue
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d)
        hooked = any(layer._forward_pre_hooks or layer._forward_hooks for layer in (conv, norm))
        transpose = isinstance(conv, nn.ConvTranspose2d)
        if norm.track_running_stats and not hooked and not (transpose and conv.groups > 1):
            layers[i] = fuse_conv_bn_eval(conv, norm, transpose)
            layers[i + 1] = nn.Identity()
