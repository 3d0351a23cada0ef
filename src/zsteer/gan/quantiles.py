"""How values are distributed, told by sorted examples of them; and the standard normal distribution."""

import torch
from jaxtyping import Float
from torch import Tensor


def at_quantile(quantiles: Float[Tensor, "m k"], shares: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The values below which these shares of each sorted column lie, interpolated linearly."""
    place = shares.to(quantiles) * (len(quantiles) - 1)
    low = place.floor().long().clamp(0, len(quantiles) - 2)
    return torch.lerp(quantiles.gather(0, low), quantiles.gather(0, low + 1), place - low)


def share_below(quantiles: Float[Tensor, "m k"], values: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The share of each sorted column that lies below values, to half of an example; never 0 or 1."""
    below = torch.searchsorted(quantiles.T.contiguous(), values.T.contiguous()).T
    return (below.to(values) + 0.5) / (len(quantiles) + 1)


def normal_cdf(values: Tensor) -> Tensor:
    """Φ, the share of a standard normal distribution below each value."""
    return torch.special.ndtr(values)


def normal_quantile(shares: Tensor) -> Tensor:
    """Φ⁻¹, the value below which each share of a standard normal distribution lies."""
    return torch.special.ndtri(shares)
