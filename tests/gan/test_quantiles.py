"""How values are distributed, by independent formulas."""

import numpy as np
import torch

from zsteer.gan.quantiles import at_quantile, normal_cdf, normal_quantile, share_below


def drawn(num):
    """Two columns of values, sorted."""
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort(dim=0).values


def test_quantiles_are_interpolated_as_elsewhere():
    values = drawn(50)
    shares = torch.tensor([[0.0, 1.0], [0.31, 0.5], [0.999, 0.01]], dtype=torch.float64)
    wanted = [[np.quantile(values[:, column], share) for column, share in enumerate(row)] for row in shares.tolist()]
    torch.testing.assert_close(at_quantile(values, shares), torch.tensor(wanted, dtype=torch.float64))


def test_the_share_below_a_value_counts_the_examples_below_it():
    values = drawn(9)
    asked = torch.stack([values[:, 0].flip(0), torch.linspace(-9, 9, 9, dtype=torch.float64)], dim=1)
    wanted = [[((values[:, column] < x).sum().item() + 0.5) / 10 for column, x in enumerate(row)] for row in asked]
    torch.testing.assert_close(share_below(values, asked), torch.tensor(wanted, dtype=torch.float64))


def test_normal_shares_and_quantiles_are_each_others_inverse():
    shares = torch.tensor([0.0228, 0.5, 0.8413], dtype=torch.float64)
    values = normal_quantile(shares)
    torch.testing.assert_close(values, torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64), atol=2e-3, rtol=0)
    torch.testing.assert_close(normal_cdf(values), shares)
