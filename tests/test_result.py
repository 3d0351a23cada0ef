"""What every result can do."""

import base64
import io

import pytest
from PIL import Image, ImageChops
from places import GOLDEN_NETWORKS

import zsteer


@pytest.fixture(scope="module")
def steered():
    return zsteer.steer(*GOLDEN_NETWORKS, "trainer=cpu", num_steps=2, num_images=3, show_every=1)


def test_a_result_is_shown_in_a_few_lines(steered):
    assert repr(steered) == str(steered) and 3 < repr(steered).count("\n") < 30


def test_a_notebook_shows_picture_and_lines(steered):
    shown = steered._repr_html_()
    data = shown.partition("base64,")[2].partition('"')[0]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert ImageChops.difference(picture, steered.picture).getbbox() is None
    assert "<pre>" in shown and "gain_classifier" in shown


def test_where_steering_ended(steered):
    assert steered.noise.shape == (3, 64) and (steered.noise == steered.history.noise[-1]).all()
    assert steered.images.shape == (3, 3, 64, 64) and (steered.images == steered.history.images[2]).all()


def test_a_strip_is_the_picture_with_rows_and_columns_exchanged(steered):
    side = 64 + 2
    for row in range(3):
        for column in range(3):  # steps 0, 1 and the end
            box = [2 + column * side, 2 + row * side]
            other = [2 + row * side, 2 + column * side]
            one = steered.strip.crop((*box, box[0] + 64, box[1] + 64))
            assert one.tobytes() == steered.picture.crop((*other, other[0] + 64, other[1] + 64)).tobytes()


def test_a_result_is_saved_once(steered, tmp_path):
    steered.save(str(tmp_path / "mine"))
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert {"history.safetensors", "metrics.json", "steering.png"} <= names
    before = (tmp_path / "mine" / "metrics.json").stat().st_mtime_ns
    with pytest.raises(ValueError, match="folder=.*mine already holds a result"):
        steered.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "metrics.json").stat().st_mtime_ns == before
