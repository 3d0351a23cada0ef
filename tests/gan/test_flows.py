"""Fitting a flow: it learns what goes together in numbers, and keeps what is best on those held out."""

import copy
import math

import pytest
import torch

from zsteer.gan.flows import fit, surprise
from zsteer.networks.described import Flow


def bent(num):
    """Two uncorrelated numbers, of mean 0 and deviation 1, the second of which follows from the first."""
    random = torch.Generator().manual_seed(0)
    first, rest = torch.randn(2, num, generator=random)
    return torch.stack([first, 0.9 * (first.square() - 1) / math.sqrt(2) + math.sqrt(1 - 0.81) * rest], dim=1)


def fitted(numbers, num_steps, seed=0, dropout=0.0):
    torch.manual_seed(0)
    flow = Flow(2, layers=6, width=16)
    fit(flow, numbers, num_steps, dropout, seed)
    return flow


def test_numbers_of_a_fitted_flow_go_together_as_those_that_it_saw():
    flow = fitted(bent(4000), 300)
    drawn = flow(torch.randn(20_000, 2, generator=torch.Generator().manual_seed(1)))
    bend = torch.corrcoef(torch.stack([drawn[:, 0].square(), drawn[:, 1]]))[0, 1]
    assert 0.75 < bend < 0.97  # 0.9 in what it saw
    assert drawn.mean(dim=0).abs().max() < 0.1 and (drawn.std(dim=0) - 1).abs().max() < 0.15
    assert not any(weight.requires_grad for weight in flow.parameters())


def test_the_weights_that_are_best_on_numbers_held_out_are_kept():
    few = bent(100)  # which a flow knows by heart after so many steps
    flow, new = fitted(few, 400), bent(5000)[2500:]
    untrained = surprise(Flow(2, layers=6, width=16), new)
    assert surprise(flow, new) < untrained


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_same_seed_fits_the_same_flow_and_draws_nothing_from_torchs_source(dropout):
    first, again, other = (fitted(bent(200), 5, seed, dropout) for seed in (0, 0, 1))
    state = torch.get_rng_state()
    fit(copy.deepcopy(other), bent(200), 5, dropout, 0)
    assert torch.equal(torch.get_rng_state(), state)
    first, again, other = (flow.state_dict() for flow in (first, again, other))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_dropout_leaves_out_hidden_units_while_it_fits_and_none_afterwards():
    numbers, noise = bent(200), torch.randn(5, 2)
    without, half = (fitted(numbers, 20, dropout=dropout) for dropout in (0.0, 0.5))
    assert not torch.equal(without(noise), half(noise))
    assert torch.equal(half(noise), half(noise))
