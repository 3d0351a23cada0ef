"""Pictures of any kind become RGB of one size, and what is none is refused in a line."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from zsteer.data.photos import fitted, open_photo, photo_files


def saved(image: Image.Image, form: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, form, **options)
    file.seek(0)
    return file


def of_mode(mode: str, value) -> Image.Image:
    return Image.new(mode, (3, 2), value)


def palette(**options) -> io.BytesIO:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return saved(image, **options)


KINDS = {
    "black and white": (saved(of_mode("1", 1)), (255, 255, 255)),
    "grey": (saved(of_mode("L", 90)), (90, 90, 90)),
    "grey and alpha": (saved(of_mode("LA", (90, 10))), (90, 90, 90)),
    "whole numbers of a byte": (saved(Image.fromarray(np.full((2, 3), 100, np.int32)), "TIFF"), (100, 100, 100)),
    "grey of 16 bits": (saved(Image.fromarray(np.full((2, 3), 25_700, np.uint16))), (100, 100, 100)),
    "palette": (palette(), (200, 100, 50)),
    "palette with transparency": (palette(transparency=b"\x00\x40"), (200, 100, 50)),
    "alpha": (saved(of_mode("RGBA", (200, 100, 50, 10))), (200, 100, 50)),
    "four inks": (saved(of_mode("CMYK", (55, 155, 205, 0)), "TIFF"), (200, 100, 50)),
    "two frames": (
        saved(of_mode("RGB", (200, 100, 50)), save_all=True, append_images=[of_mode("RGB", 0)]),
        (200, 100, 50),
    ),
}


@pytest.mark.parametrize(("file", "colour"), KINDS.values(), ids=KINDS)
def test_every_kind_of_picture_becomes_rgb(file, colour):
    image = open_photo(file)
    assert image.mode == "RGB"
    assert image.getpixel((1, 1)) == colour


def test_a_picture_is_turned_upright():
    image = Image.new("RGB", (4, 2), "blue")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the first row is the right side
    upright = open_photo(saved(image, exif=exif))
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize(("width", "height"), [(50, 20), (20, 50), (20, 20)])
def test_the_largest_centred_part_is_kept(width, height):
    image = Image.new("RGB", (width, height), "red")
    side = min(width, height)
    image.paste("lime", ((width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2))
    assert fitted(image, 8, 8).transpose(1, 2, 0).reshape(-1, 3).tolist() == [[0, 255, 0]] * 64


def test_it_may_have_another_shape_than_a_square():
    image = Image.new("RGB", (40, 40), "red")
    image.paste("lime", (0, 10, 40, 30))
    assert fitted(image, 6, 12).transpose(1, 2, 0).reshape(-1, 3).tolist() == [[0, 255, 0]] * 72


def test_shrinking_averages():
    stripes = np.tile(np.array([0, 200], np.uint8), 32)
    image = Image.fromarray(np.broadcast_to(stripes[None, :, None], (64, 64, 3)).copy())
    assert np.abs(fitted(image, 4, 4).astype(int) - 100).max() <= 2


REFUSED = {
    "a text": (io.BytesIO(b"hello"), "it is no image in BMP"),
    "nothing": (io.BytesIO(), "it is no image in BMP"),
    "a format that is not read": (saved(of_mode("RGB", 0), "ICO"), "it is no image in BMP"),
    "numbers of any size": (saved(of_mode("F", 0.5), "TIFF"), "floating-point pixels have no known range"),
    "whole numbers of 32 bits": (saved(of_mode("I", 70_000), "TIFF"), "beyond 16 bits have no known range"),
    "a file that ends early": (io.BytesIO(saved(Image.effect_noise((64, 64), 50)).getvalue()[:900]), "truncated"),
}


@pytest.mark.parametrize(("file", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_picture_is_refused_in_a_line(file, said):
    with pytest.raises(ValueError, match=said) as caught:
        open_photo(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [800, 400])  # Pillow warns from its limit on, and refuses twice as many
def test_a_picture_larger_than_pillows_limit_is_refused(monkeypatch, limit):
    file = saved(Image.new("RGB", (30, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match="more than [48]00"), warnings.catch_warnings(action="ignore"):
        open_photo(file)


def test_files_come_in_the_order_of_their_names_without_hidden_ones(tmp_path):
    for name in ("b.png", "a.jpg", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert [file.name for file in photo_files(tmp_path, "image")] == ["a.jpg", "b.png"]
    assert photo_files(tmp_path / "b.png", "image") == [tmp_path / "b.png"]


def test_no_file_is_an_error_that_names_the_key(tmp_path):
    with pytest.raises(ValueError, match="^image=.* has no files"):
        photo_files(tmp_path, "image")
    with pytest.raises(FileNotFoundError, match="^image=.*/none: no such file or folder$"):
        photo_files(tmp_path / "none", "image")
