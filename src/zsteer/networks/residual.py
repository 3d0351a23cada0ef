"""A small residual classifier, for judges."""

from jaxtyping import Float
from torch import Tensor, nn


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
