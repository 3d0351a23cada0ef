"""SNGAN's residual generator and discriminator (Miyato et al. 2018, appendix B.4), as mimicry sizes them for 64×64
pixels (Lee & Town 2020).
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class SNGANGenerator(nn.Module):
    """Noise `[n, z_dim]` to 64×64 images in [-1, 1]: four blocks with batch norm, each of which doubles the resolution.

    Args:
        hidden_dim: channels at 64×64; 16 times as many at 4×4.
    """

    def __init__(self, z_dim: int = 128, im_chan: int = 3, hidden_dim: int = 64):
        super().__init__()
        self.z_dim = z_dim
        widths = [hidden_dim * factor for factor in (16, 8, 4, 2, 1)]
        self.linear = _initialised(nn.Linear(z_dim, widths[0] * 4 * 4))
        self.blocks = nn.Sequential(*map(GeneratorBlock, widths, widths[1:]))
        self.head = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(inplace=True),
            _initialised(nn.Conv2d(widths[-1], im_chan, kernel_size=3, padding=1)),
            nn.Tanh(),
        )

    def forward(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n c 64 64"]:
        return self.head(self.blocks(self.linear(noise).unflatten(1, (-1, 4, 4))))


class GeneratorBlock(nn.Module):
    """Two 3×3 convolutions, the resolution doubled before the first, beside a 1×1 shortcut."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            _initialised(nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1), gain=2**0.5),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            _initialised(nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1), gain=2**0.5),
        )
        # The 1×1 convolution and the interpolation commute; this order has a quarter of the arithmetic.
        self.shortcut = nn.Sequential(
            _initialised(nn.Conv2d(channels_in, channels_out, kernel_size=1)),
            nn.Upsample(scale_factor=2, mode="bilinear"),
        )

    def forward(self, x: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k2 h2 w2"]:
        return self.body(x) + self.shortcut(x)


class SNGANDiscriminator(nn.Module):
    """64×64 images to logits `[n]`: five blocks, each of which halves the resolution, and a sum over positions.

    Args:
        hidden_dim: channels after the first block; 16 times as many after the last.
        spectral: bound the largest singular value of each layer by 1 (one power iteration a step).
        num_conditions: see `zsteer.networks`.
    """

    def __init__(self, im_chan: int = 3, hidden_dim: int = 64, spectral: bool = True, num_conditions: int = 0):
        super().__init__()
        widths = [im_chan, *(hidden_dim * factor for factor in (1, 2, 4, 8, 16))]
        blocks = [
            DiscriminatorBlock(channels_in, channels_out, first=i == 0)
            for i, (channels_in, channels_out) in enumerate(zip(widths, widths[1:], strict=False))
        ]
        self.blocks = nn.Sequential(*blocks, nn.ReLU(inplace=True))
        self.head = _initialised(nn.Linear(widths[-1], 1 + num_conditions))
        if spectral:
            for layer in [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]:
                spectral_norm(layer)

    def forward(self, images: Float[Tensor, "n c 64 64"]) -> Float[Tensor, "n m"] | Float[Tensor, " n"]:
        return self.head(self.blocks(images).sum(dim=(2, 3))).squeeze(1)


class DiscriminatorBlock(nn.Module):
    """Two 3×3 convolutions and a mean over 2×2 pixels, beside a pooled 1×1 shortcut; the first block takes pixels."""

    def __init__(self, channels_in: int, channels_out: int, first: bool = False):
        super().__init__()
        hidden = channels_out if first else channels_in
        self.body = nn.Sequential(
            nn.Identity() if first else nn.ReLU(),
            _initialised(nn.Conv2d(channels_in, hidden, kernel_size=3, padding=1), gain=2**0.5),
            nn.ReLU(inplace=True),
            _initialised(nn.Conv2d(hidden, channels_out, kernel_size=3, padding=1), gain=2**0.5),
        )
        self.shortcut = _initialised(nn.Conv2d(channels_in, channels_out, kernel_size=1))

    def forward(self, x: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k2 h2 w2"]:
        # A mean and a 1×1 convolution commute.
        return F.avg_pool2d(self.body(x), 2) + self.shortcut(F.avg_pool2d(x, 2))


def _initialised(layer: nn.Linear | nn.Conv2d, gain: float = 1.0) -> nn.Module:
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer
