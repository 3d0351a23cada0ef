import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

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


def rows(num_logits, targets, signs, weights):
    settings = zip(targets, signs, weights, strict=True)
    return Rows.joined(
        [
            Rows.of_job(1, target, sign, weight, 0.1, torch.arange(num_logits) != target)
            for target, sign, weight in settings
        ]
    )
