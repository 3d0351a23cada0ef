"""The standard DCGAN pair (Radford et al. 2016)."""

from jaxtyping import Float
from torch import Tensor, nn

from zsteer.networks.sizes import check_size
from zsteer.networks.tutorial import LEAKY_SLOPE


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
    """A DCGAN discriminator of 64×64 images, without normalisation: with R1 it is stable where batch norm collapses.

    Args:
        num_conditions: see `zsteer.networks`.
    """

    def __init__(self, im_chan: int = 3, hidden_dim: int = 64, num_conditions: int = 0):
        super().__init__()
        widths = [im_chan, hidden_dim, 2 * hidden_dim, 4 * hidden_dim, 8 * hidden_dim]
        layers: list[nn.Module] = []
        for channels_in, channels_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)]
            layers += [nn.LeakyReLU(LEAKY_SLOPE, inplace=True)]
        self.disc = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1 + num_conditions, kernel_size=4))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n m"] | Float[Tensor, " n"]:
        check_size(images, range(64, 80))  # which the convolutions bring down to one position
        return self.disc(images).flatten(1).squeeze(1)
