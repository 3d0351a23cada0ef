"""A generator the last numbers of whose noise a flow turns into the description of an image."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

STEEPEST = 1.0  # bound on each coupling's log-scale, or far noise would go to no image's description


class Coupling(nn.Module):
    """Scales and moves one half of some numbers, `[n, k]`, by what a small network makes of the others.

    Dinh et al. 2017, eqs. 7 and 8.
    """

    kept: Float[Tensor, " k"]

    def __init__(self, kept: Float[Tensor, " k"], width: int):
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)
        last = nn.Linear(width, 2 * len(kept))
        nn.init.zeros_(last.weight)  # so that it starts as the identity
        nn.init.zeros_(last.bias)
        first = [nn.Linear(len(kept), width), nn.SiLU(), nn.Dropout(0.0)]  # dropped while it is fitted
        second = [nn.Linear(width, width), nn.SiLU(), nn.Dropout(0.0)]
        self.layers = nn.Sequential(*first, *second, last)

    def _scale_and_shift(self, numbers: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """The logarithm of the scale, and the shift; zero where numbers are kept."""
        scale, shift = self.layers(numbers * self.kept).chunk(2, dim=1)
        return STEEPEST * torch.tanh(scale / STEEPEST) * (1 - self.kept), shift * (1 - self.kept)

    def forward(self, numbers: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        scale, shift = self._scale_and_shift(numbers)
        return numbers * scale.exp() + shift

    def inverse(self, numbers: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, " n"]]:
        """What it had been given, and the logarithm of that volume over this."""
        scale, shift = self._scale_and_shift(numbers)
        return (numbers - shift) * (-scale).exp(), -scale.sum(dim=1)


class Flow(nn.Sequential):
    """Standard normal noise `[n, k]` to numbers of another distribution, and back (RealNVP; Dinh et al. 2017).

    Couplings go in pairs, which keep either half; the halves of pair i are told apart by one binary digit of the
    numbers' places, another for each pair, so that after as many pairs as there are digits each has met each other.
    """

    def __init__(self, num: int, layers: int, width: int):
        digits = max(1, (num - 1).bit_length())
        places = torch.arange(num)
        halves = [((places >> i // 2 % digits) & 1 == i % 2).float() for i in range(layers)]
        super().__init__(*(Coupling(kept, width) for kept in halves))

    def inverse(self, numbers: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, " n"]]:
        """The noise, and the logarithm of its volume over the numbers'."""
        log_volume = numbers.new_zeros(len(numbers))
        for coupling in reversed(self):
            assert isinstance(coupling, Coupling)
            numbers, more = coupling.inverse(numbers)
            log_volume = log_volume + more
        return numbers, log_volume


class DescribedGenerator(nn.Module):
    """A generator that was told descriptions of images, and now draws them: its noise `[n, z_dim]` is standard normal.

    Args:
        network: any generator, the last `num` of whose numbers describe the image.
        layers, width: of the flow that draws them: its couplings, and the hidden units of each.

    Raises:
        ValueError: no number is left for noise.
    """

    z_dim: int
    network: nn.Module

    def __init__(self, network: nn.Module, num: int, layers: int, width: int):
        super().__init__()
        z_dim: Any = network.z_dim
        if num >= z_dim:
            raise ValueError(
                f"gan.description has {num} numbers, which must be fewer than generator.network.z_dim={z_dim}"
            )
        self.network, self.z_dim, self.num, self.layers, self.width = network, z_dim, num, layers, width
        self.flow = Flow(num, layers, width).requires_grad_(False)  # it is fitted by itself

    def forward(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n 3 h w"]:
        free, drawn = noise[:, : -self.num], noise[:, -self.num :]
        return self.network(torch.cat([free, self.flow(drawn)], dim=1))

    def config(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """Its config, given that of the network inside."""
        return {
            "_target_": "zsteer.networks.DescribedGenerator",
            "network": dict(network),
            **{name: getattr(self, name) for name in ("num", "layers", "width")},
        }


def described(generator: nn.Module, num: int, layers: int, width: int) -> nn.Module:
    """A generator the last numbers of whose noise become a description; the same one where they are that already.

    Raises:
        ValueError: its description has another length, or no number is left for noise.
    """
    if not isinstance(generator, DescribedGenerator):
        return DescribedGenerator(generator, num, layers, width)
    if generator.num != num:
        raise ValueError(
            f"gan.description has {num} numbers, and generator.network.num={generator.num}; describe by the classifier "
            "of the generator's training"
        )
    return generator
