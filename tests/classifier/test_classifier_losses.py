"""A classifier's loss against independent formulas."""

import math

import torch

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
