"""The tutorial's two networks, as its checkpoints hold them."""

from jaxtyping import Float
from torch import Tensor, nn

from zsteer.networks.sizes import check_size

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
        check_size(images, range(58, 82))  # which the convolutions bring down to one position
        return self.classifier(images).flatten(1)
