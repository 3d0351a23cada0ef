"""What steering climbs, against closed forms."""

import pytest
import torch

from zsteer.steering.objectives import smooth_score, steering_score
from zsteer.steering.rows import Rows


def logits(*shape, seed=0):
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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
