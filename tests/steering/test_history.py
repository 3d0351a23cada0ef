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
    )
    with pytest.raises(NonFiniteScore, match=rf"^scores are not finite at step 0 in rows \[1\]: {said}"):
        history.check_finite(lambda noise: torch.full((len(noise), 3, 2, 2), image))
