"""Which start is kept."""

import pytest
import torch

from zsteer.inversion.search import nearest

NAN = torch.nan


def test_the_start_that_ended_nearest_is_kept_and_one_that_ended_in_nan_is_not():
    losses = torch.tensor([[0.3, 0.1, 0.2], [NAN, 0.5, 0.7], [0.1, torch.inf, NAN]])
    assert nearest(losses).tolist() == [1, 1, 0]


def test_a_picture_without_a_start_that_got_anywhere_is_an_error():
    with pytest.raises(ValueError, match="all starts of a picture end in NaN; lower optimizer.lr"):
        nearest(torch.tensor([[0.3, 0.1], [NAN, NAN]]))
