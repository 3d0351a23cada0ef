"""R3GAN's generator and discriminator (Huang et al. 2024): residual blocks without normalisation, scaled at the start.

Written from the paper's description. A regularised relativistic loss (`gan_loss=r3gan`) is what lets so plain a pair
train stably. Under bfloat16 what works at 4×4 pixels stays in full precision, as in the authors' settings.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zsteer.networks.sizes import check_size
from zsteer.networks.tutorial import LEAKY_SLOPE

FFHQ64 = (768, 768, 768, 768, 384)  # the paper's widths at 4, 8, 16, 32 and 64 pixels
EXPANSION = 2
GROUP_SIZE = 16


class R3GANGenerator(nn.Module):
    """Noise `[n, z_dim]` to images of 4 · 2^(stages − 1) pixels, about [-1, 1] once trained: there is no tanh.

    Args:
        widths: channels of each stage, from 4×4 pixels up.
        width: factor of all of them; each must stay a multiple of 8, so that 3×3 convolutions have whole groups of 16.
        blocks: of each stage.
    """

    def __init__(
        self,
        z_dim: int = 64,
        im_chan: int = 3,
        widths: Sequence[int] = FFHQ64,
        width: float = 1.0,
        blocks: int = 2,
    ):
        super().__init__()
        self.z_dim = z_dim
        stages = _scaled(widths, width)
        self.linear = _gained(nn.Linear(z_dim, stages[0], bias=False))
        self.basis = nn.Parameter(torch.randn(stages[0], 4, 4))
        layers: list[nn.Module] = []
        for i, channels in enumerate(stages):
            if i > 0:
                layers += [*_conv1x1(stages[i - 1], channels), Upsample()]
            layers += [Block(channels, blocks * len(stages)) for _ in range(blocks)]
        self.coarse = nn.Sequential(*layers[:blocks])  # at 4×4 pixels
        self.fine = nn.Sequential(*layers[blocks:], _gained(nn.Conv2d(stages[-1], im_chan, kernel_size=1, bias=False)))

    def forward(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n c h w"]:
        with torch.autocast(noise.device.type, enabled=False):
            x = self.coarse(self.basis * self.linear(noise)[:, :, None, None])
        return self.fine(x)


class R3GANDiscriminator(nn.Module):
    """Images to logits `[n]`: the generator's mirror image, ending in a depthwise 4×4 convolution and a linear layer.

    Args:
        widths, width, blocks: as of the generator, from 4×4 pixels up.
        num_conditions: see `zsteer.networks`.
    """

    def __init__(
        self,
        im_chan: int = 3,
        widths: Sequence[int] = FFHQ64,
        width: float = 1.0,
        blocks: int = 2,
        num_conditions: int = 0,
    ):
        super().__init__()
        stages = _scaled(widths, width)[::-1]
        layers: list[nn.Module] = [_gained(nn.Conv2d(im_chan, stages[0], kernel_size=1, bias=False))]
        for i, channels in enumerate(stages):
            if i > 0:
                layers += [Downsample(), *_conv1x1(stages[i - 1], channels)]
            layers += [Block(channels, blocks * len(stages)) for _ in range(blocks)]
        last = stages[-1]
        self.fine = nn.Sequential(*layers[:-blocks])
        self.coarse = nn.Sequential(  # at 4×4 pixels
            *layers[-blocks:],
            _gained(nn.Conv2d(last, last, kernel_size=4, groups=last, bias=False)),
            nn.Flatten(),
            _gained(nn.Linear(last, 1 + num_conditions, bias=False)),
        )

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n m"] | Float[Tensor, " n"]:
        check_size(images, [4 << sum(isinstance(layer, Downsample) for layer in self.fine)])
        x = self.fine(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.coarse(x.to(self.coarse[-1].weight.dtype)).squeeze(1)


class Block(nn.Module):
    """x plus three convolutions: 1×1 to twice the width, 3×3 in groups of 16 channels, 1×1 back.

    Args:
        num_blocks: of the whole network, by which the weights are scaled at the start (Zhang et al. 2019). The last
            convolution starts at zero, so that the block starts as the identity.
    """

    def __init__(self, width: int, num_blocks: int):
        super().__init__()
        wide = EXPANSION * width
        gain = math.sqrt(2 / (1 + LEAKY_SLOPE**2)) * num_blocks**-0.25
        self.layers = nn.Sequential(
            _gained(nn.Conv2d(width, wide, kernel_size=1), gain),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            _gained(nn.Conv2d(wide, wide, kernel_size=3, padding=1, groups=wide // GROUP_SIZE), gain),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            _gained(nn.Conv2d(wide, width, kernel_size=1, bias=False), gain=0.0),
        )

    def forward(self, x: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h w"]:
        return x + self.layers(x)


class Upsample(nn.Module):
    """Twice the resolution: zeros between the pixels, then the filter [1, 2, 1] / 2 each way."""

    def forward(self, x: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h2 w2"]:
        return F.conv_transpose2d(x, _filter(x, 0.5), stride=2, padding=1, output_padding=1, groups=x.shape[1])


class Downsample(nn.Module):
    """Half the resolution: the filter [1, 2, 1] / 4 each way, then every second pixel."""

    def forward(self, x: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h2 w2"]:
        return F.conv2d(x, _filter(x, 0.25), stride=2, padding=1, groups=x.shape[1])


def _filter(x: Float[Tensor, "n k h w"], scale: float) -> Float[Tensor, "k 1 3 3"]:
    taps = scale * torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device)
    return torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)


def _conv1x1(channels_in: int, channels_out: int) -> list[nn.Module]:
    """A 1×1 convolution where the width changes, and nothing where it does not."""
    if channels_in == channels_out:
        return []
    return [_gained(nn.Conv2d(channels_in, channels_out, kernel_size=1, bias=False))]


def _gained(layer: nn.Linear | nn.Conv2d, gain: float = 1.0) -> nn.Module:
    """The layer with normal weights of deviation gain / √fan-in, and without bias at the start."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _scaled(widths: Sequence[int], width: float) -> list[int]:
    scaled = [round(width * channels) for channels in widths]
    if not scaled or any(channels < 8 or channels % 8 for channels in scaled):
        raise ValueError(f"network.widths={list(widths)} times network.width={width} must be multiples of 8")
    return scaled
