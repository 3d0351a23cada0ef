import math

import pytest

from zsteer.gan.schedules import Cosine, value


@pytest.mark.parametrize(
    ("images", "expected"), [(0, 2.0), (25, 2.0 - 1.8 * (1 - math.sqrt(0.5)) / 2), (50, 1.1), (100, 0.2), (10**6, 0.2)]
)
def test_cosine_goes_from_start_to_end_and_stays(images, expected):
    assert Cosine(2.0, 0.2, 100).at(images) == pytest.approx(expected)


@pytest.mark.parametrize("num", [0, -5])
def test_a_schedule_over_no_images_is_refused(num):
    with pytest.raises(ValueError, match="a schedule's num_images=.* must be more than 0"):
        Cosine(1.0, 0.0, num)


def test_a_plain_number_is_constant():
    assert value(0.3, 10**6) == 0.3
    assert value(Cosine(1.0, 0.0, 10), 5) == pytest.approx(0.5)
