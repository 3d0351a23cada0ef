"""Numbers of a config: their kinds and ranges."""

import numpy as np
import pytest

from zsteer.settings import real_number, whole_number


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "4", None, 11, 10**30])
def test_whole_numbers_are_integers_in_range(value):
    with pytest.raises(ValueError, match=r"^data.n=.* must be a whole number, from 1 to 10$"):
        whole_number(value, "data.n", 1, 10)


def test_whole_numbers_of_numpy_become_pythons():
    assert type(whole_number(np.int64(3), "n", 1)) is int


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "1", None, 10**400])
def test_real_numbers_are_finite_and_in_range(value):
    with pytest.raises(ValueError, match=r"^penalty_weight=.* must be a finite number, 0 or more$"):
        real_number(value, "penalty_weight", minimum=0.0)


@pytest.mark.parametrize("value", [0, 0.0, 1, 2.5, 10**20])
def test_numbers_in_range_pass(value):
    real_number(value, "penalty_weight", minimum=0.0)
