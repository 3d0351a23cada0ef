"""A classifier's loss against independent formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from zsteer.classifier.losses import attribute_loss


def test_balanced_attribute_loss_weighs_both_states_alike():
    outputs = torch.zeros(10, 1)
    outputs[:2] = 3.0
    targets = torch.zeros(10, 1)
    targets[:2] = 1.0
    found = attribute_loss(outputs, targets, torch.tensor([False]), torch.tensor([0.2]))
    right, unsure = -torch.tensor(3.0).sigmoid().log(), math.log(2)
    torch.testing.assert_close(found, (right + unsure) / 2)


def test_attribute_loss_is_cross_entropy_of_labels_and_half_a_square_of_numbers():
    outputs, targets = torch.tensor([[0.5, 3.0], [-1.0, 1.0]]), torch.tensor([[1.0, 2.5], [0.0, -1.0]])
    labelled = -(torch.tensor(0.5).sigmoid().log() + torch.tensor(1.0).sigmoid().log())
    squared = (0.5**2 + 2.0**2) / 2
    found = attribute_loss(outputs, targets, torch.tensor([False, True]))
    torch.testing.assert_close(found, (labelled + squared) / 4)


@pytest.mark.parametrize("rates", [None, torch.tensor([0.2, 0.5])])
def test_missing_targets_count_nowhere(rates):
    outputs = torch.tensor([[0.5, 3.0], [-1.0, 1.0], [2.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[1.0, math.nan], [math.nan, -1.0], [0.0, math.nan]])
    continuous = torch.tensor([False, True])
    found = attribute_loss(outputs, targets, continuous, rates)
    alone = [
        attribute_loss(outputs[row, column].view(1, 1), targets[row, column].view(1, 1), continuous[[column]], rate)
        for row, column in ((0, 0), (1, 1), (2, 0))
        for rate in [None if rates is None else rates[[column]]]
    ]
    torch.testing.assert_close(found, torch.stack(alone).mean())
    found.backward()
    assert outputs.grad is not None
    assert ((outputs.grad != 0) == ~targets.isnan()).all()


def test_nothing_is_lost_where_nothing_is_known():
    outputs = torch.ones(2, 2, requires_grad=True)
    attribute_loss(outputs, torch.full((2, 2), math.nan), torch.tensor([False, True])).backward()
    assert outputs.grad is not None and (outputs.grad == 0).all()


def test_the_loss_of_complete_targets_has_the_bits_of_a_plain_mean():
    source = torch.Generator().manual_seed(0)
    outputs = torch.randn(64, 40, generator=source)
    targets = (torch.rand(64, 40, generator=source) < 0.3).float()
    found = attribute_loss(outputs, targets, torch.zeros(40, dtype=torch.bool))
    assert torch.equal(found, F.binary_cross_entropy_with_logits(outputs, targets))
