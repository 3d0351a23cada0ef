"""What broke is named: the first of noise, images, logits and scores that is not finite."""

import pytest
import torch

from zsteer.steering.history import History, NonFiniteScore


@pytest.mark.parametrize(
    ("noise", "image", "logit", "said"),
    [
        (torch.nan, 0.0, torch.nan, "the noise left all numbers; lower step_size"),
        (0.0, torch.nan, torch.nan, "generator.network gives NaN or infinite images; use another"),
        (0.0, 0.0, torch.inf, "classifier.network gives NaN or infinite logits; use another"),
        (0.0, 0.0, 0.0, "lower penalty_weight"),
    ],
)
def test_the_first_that_is_not_finite_is_blamed(noise, image, logit, said):
    history = History(
        noise=[torch.full((2, 3), noise)],
        logits=[torch.full((2, 4), logit), torch.zeros(2, 4)],
        scores=[torch.tensor([0.0, torch.nan])],
        steps=[0, 1],
    )
    with pytest.raises(NonFiniteScore, match=rf"^scores are not finite at step 0 in rows \[1\]: {said}"):
        history.check_finite(lambda noise: torch.full((len(noise), 3, 2, 2), image))


def test_of_steps_that_are_not_recorded_the_next_that_is_tells_what_broke():
    noise = [torch.zeros(2, 3), torch.tensor([[0.0] * 3, [torch.nan] * 3]), torch.full((2, 3), torch.nan)]
    scores = [torch.zeros(2)] * 3 + [torch.tensor([0.0, torch.nan])] + [torch.full((2,), torch.nan)] * 5
    history = History(noise, [torch.zeros(2, 4)] * 3, scores, {0: torch.zeros(2, 3, 2, 2)}, steps=[0, 4, 9])
    with pytest.raises(
        NonFiniteScore, match=r"^scores are not finite at step 3 in rows \[1\]: the noise left"
    ) as caught:
        history.check_finite(lambda noise: torch.zeros(len(noise), 3, 2, 2))
    assert caught.value.history.steps == [0]
    assert len(caught.value.history.scores) == 3
