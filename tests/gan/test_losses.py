import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zsteer.classifier.losses import attribute_loss
from zsteer.gan.losses import (
    bce_discriminator,
    bce_generator,
    critic_generator,
    hinge_discriminator,
    one_centred_penalty,
    relativistic,
    wasserstein_discriminator,
    zero_centred_penalty,
)
from zsteer.steering.objectives import smooth_score, steering_score
from zsteer.steering.rows import Rows


def logits(*shape, seed=0):
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_discriminator_loss_is_cross_entropy_with_real_one_and_fake_zero():
    real, fake = logits(5, seed=1), logits(7, seed=2)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(bce_discriminator(real, fake), expected)


def test_generator_loss_is_cross_entropy_with_fake_one():
    fake = logits(7)
    expected = F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    torch.testing.assert_close(bce_generator(fake), expected)


def test_losses_are_finite_for_extreme_logits():
    extreme = torch.tensor([-1e4, 1e4])
    assert bce_discriminator(extreme, extreme).isfinite()
    assert bce_generator(extreme).isfinite()


def test_generator_learns_from_a_discriminator_that_is_sure():
    fake = torch.tensor([-50.0], requires_grad=True)
    bce_generator(fake).backward()
    assert fake.grad is not None
    torch.testing.assert_close(fake.grad, torch.tensor([-1.0]))


def test_hinge_losses_are_linear_up_to_the_margin():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 0.5, 2.0])
    assert hinge_discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 1.5 + 3) / 4)
    assert critic_generator(fake).item() == pytest.approx(0.5 / 4)


def test_wasserstein_loss_is_the_difference_of_the_means():
    real, fake = logits(5, seed=1), logits(7, seed=2)
    expected = sum(fake.tolist()) / 7 - sum(real.tolist()) / 5
    assert wasserstein_discriminator(real, fake).item() == pytest.approx(expected)


def test_relativistic_loss_is_cross_entropy_of_the_difference_of_pairs():
    real, fake = logits(6, seed=1), logits(6, seed=2)
    expected = sum(math.log(1 + math.exp(f - r)) for r, f in zip(real.tolist(), fake.tolist(), strict=True)) / 6
    assert relativistic(real, fake).item() == pytest.approx(expected)
    ones = torch.ones_like(real)
    torch.testing.assert_close(relativistic(fake, real), F.binary_cross_entropy_with_logits(fake - real, ones))


@pytest.mark.parametrize("batch", [1, 5])
def test_penalties_of_a_linear_discriminator_are_of_its_weight(batch):
    weight = logits(3 * 4 * 4, seed=3)
    images = logits(batch, 3, 4, 4).requires_grad_()
    scores = images.flatten(1) @ weight + 2
    torch.testing.assert_close(zero_centred_penalty(scores, images), torch.dot(weight, weight))
    torch.testing.assert_close(one_centred_penalty(scores, images), (torch.dot(weight, weight).sqrt() - 1) ** 2)


def test_penalties_of_a_quadratic_discriminator_are_means_over_the_images():
    images = logits(6, 3, 2, 2).requires_grad_()
    scores = images.square().sum(dim=(1, 2, 3))
    squares = [4 * float(image.square().sum()) for image in images.detach()]
    assert zero_centred_penalty(scores, images).item() == pytest.approx(sum(squares) / 6)
    expected = sum((square**0.5 - 1) ** 2 for square in squares) / 6
    assert one_centred_penalty(scores, images).item() == pytest.approx(expected)


def test_penalties_can_be_minimised():
    discriminator = nn.Linear(12, 1).double()
    images = logits(4, 3, 2, 2).requires_grad_()
    zero_centred_penalty(discriminator(images.flatten(1)).flatten(), images).backward()
    assert discriminator.weight.grad is not None
    torch.testing.assert_close(discriminator.weight.grad, 2 * discriminator.weight.detach())


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


def rows(num_logits, targets, signs, weights):
    settings = zip(targets, signs, weights, strict=True)
    return Rows.joined(
        [
            Rows.of_job(1, target, sign, weight, 0.1, torch.arange(num_logits) != target)
            for target, sign, weight in settings
        ]
    )


def test_steering_score_of_each_row_is_its_signed_target_less_the_weighted_change_of_the_others():
    now, start = logits(4, 6, seed=4), logits(4, 6, seed=5)
    targets, signs, weights = [0, 5, 2, 2], [1.0, -1.0, 1.0, -1.0], [0.1, 0.1, 0.0, 2.0]
    scores = steering_score(now, start, rows(6, targets, signs, weights))
    for i in range(4):
        squared = sum((float(now[i, k]) - float(start[i, k])) ** 2 for k in range(6) if k != targets[i])
        expected = signs[i] * float(now[i, targets[i]]) - weights[i] * squared**0.5
        assert scores[i].item() == pytest.approx(expected, rel=1e-12)


def test_steering_score_does_not_penalise_the_targets_own_change():
    start = logits(2, 5)
    now = start.clone()
    now[:, 3] += 7
    scores = steering_score(now, start, rows(5, [3, 3], [1.0, 1.0], [10.0, 10.0]))
    torch.testing.assert_close(scores, start[:, 3] + 7)


@pytest.mark.parametrize("weight", [0.0, 0.1, 100.0])
def test_penalty_has_gradient_zero_at_zero_change(weight):
    now = logits(3, 5).requires_grad_()
    steering_score(now, now.detach(), rows(5, [1, 1, 1], [1.0, -1.0, 1.0], [weight] * 3)).sum().backward()
    only_target = torch.zeros(3, 5, dtype=torch.float64)
    only_target[:, 1] = torch.tensor([1.0, -1.0, 1.0])
    torch.testing.assert_close(now.grad, only_target, rtol=0, atol=0)


def test_penaltys_gradient_off_zero_is_the_weight_in_the_direction_of_the_change():
    start = torch.zeros(1, 3, dtype=torch.float64)
    now = torch.tensor([[5.0, 3.0, -4.0]], dtype=torch.float64, requires_grad=True)
    steering_score(now, start, rows(3, [0], [1.0], [0.5])).sum().backward()
    torch.testing.assert_close(now.grad, torch.tensor([[1.0, -0.5 * 3 / 5, 0.5 * 4 / 5]], dtype=torch.float64))


def test_rows_do_not_influence_one_another():
    now, start = logits(4, 6, seed=6), logits(4, 6, seed=7)
    settings = rows(6, [0, 1, 2, 3], [1.0, -1.0, 1.0, -1.0], [0.1, 0.2, 0.3, 0.4])
    together = steering_score(now, start, settings)
    alone = [steering_score(now[i : i + 1], start[i : i + 1], settings[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_smooth_score_counts_in_sigma_and_squares_the_change_of_the_kept_logits():
    now, start, sigma = logits(2, 4, seed=8), logits(2, 4, seed=9), torch.tensor([1.0, 2.0, 0.5, torch.inf]).double()
    kept = torch.tensor([False, True, True, True])
    rows_ = Rows.joined([Rows.of_job(1, 0, sign, weight, 0.1, kept) for sign, weight in ((1.0, 0.3), (-1.0, 2.0))])
    scores = smooth_score(now, start, sigma, rows_)
    for i, (sign, weight) in enumerate(((1.0, 0.3), (-1.0, 2.0))):
        squared = sum(((now[i, k] - start[i, k]) / sigma[k]).item() ** 2 for k in (1, 2))
        assert scores[i].item() == pytest.approx(sign * now[i, 0].item() - weight / 2 * squared)
