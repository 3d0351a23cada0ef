"""A small residual classifier, for judges."""

from jaxtyping import Float
from torch import Tensor, nn

from zsteer.networks.sizes import check_size

SIZES = (16, 32, 64, 128, 256, 512)


class ResidualClassifier(nn.Module):
    """A small ResNet (He et al. 2016) with group norm (Wu & He 2018) and SiLU.

    The bundled judge: it shares neither layers, normalisation nor activation with the tutorial's classifier, so that
    what fools the one need not fool the other.

    Args:
        size: pixels a side; as many blocks as bring them down to 4×4, the widths doubling up to 8 · `hidden_dim`.

    Raises:
        ValueError: another size than 16, 32, 64, 128, 256 or 512.
    """

    def __init__(self, im_chan: int = 3, n_classes: int = 40, hidden_dim: int = 32, size: int = 64):
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"network.size={size} must be one of {', '.join(map(str, SIZES))}; it follows data.size")
        widths = [hidden_dim * min(2**block, 8) for block in range(SIZES.index(size) + 2)]
        self.features = nn.Sequential(
            nn.Conv2d(im_chan, hidden_dim, kernel_size=3, stride=2, padding=1),
            *map(ResidualBlock, widths, widths[1:]),
        )
        self.head = nn.Linear(widths[-1] * 4 * 4, n_classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        check_size(images, [4 << len(self.features)])  # each layer halves it, down to 4
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
