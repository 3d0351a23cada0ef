"""Pictures as files, folders, objects of Pillow's and tensors."""

import numpy as np
import pytest
import torch
from PIL import Image

from zsteer.inversion.given import given_pictures

PICTURE = Image.effect_noise((40, 30), 80).convert("RGB")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    PICTURE.save(folder / "b.png")
    PICTURE.rotate(180).save(folder / "a.bmp")
    return folder


def test_a_file_a_picture_and_a_folder_give_the_same(folder):
    given = given_pictures(str(folder), 16, 16)
    assert given.names == ["a.bmp", "b.png"]
    assert given.images.shape == (2, 3, 16, 16)
    assert torch.equal(given.images[1:], given_pictures(folder / "b.png", 16, 16).images)
    assert torch.equal(given.images[1:], given_pictures(PICTURE, 16, 16).images)


def test_black_is_minus_one_and_white_one():
    for colour, value in (("black", -1), ("white", 1)):
        assert given_pictures(Image.new("RGB", (20, 20), colour), 16, 16).images.unique().tolist() == [value]


def test_tensors_and_arrays_are_taken_as_they_are():
    images = torch.rand(2, 3, 8, 6) * 2 - 1
    for given in (images, images.numpy(), images.double()):
        assert torch.equal(given_pictures(given, 8, 6).images, images)
    assert torch.equal(given_pictures(images.numpy()[:, ::-1], 8, 6).images, images.flip(1))
    one = given_pictures(images[0], 8, 6)
    assert torch.equal(one.images, images[:1])
    assert one.names == ["0"]


def test_what_cannot_be_read_is_named_and_counted_and_the_rest_goes_on(folder, caplog):
    (folder / "notes.txt").write_text("hello")
    (folder / "z.png").write_bytes((folder / "b.png").read_bytes()[:100])
    given = given_pictures(str(folder), 16, 16)
    assert given.names == ["a.bmp", "b.png"]
    assert list(given.unreadable) == ["notes.txt", "z.png"]
    assert f"image={folder}: 2 of 4 files cannot be read: notes.txt, z.png" in caplog.text


def test_a_folder_without_a_single_picture_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="^image=.* has no picture that can be read; notes.txt: it is no image"):
        given_pictures(tmp_path, 16, 16)
    with pytest.raises(ValueError, match="^image=.*notes.txt cannot be read: it is no image"):
        given_pictures(tmp_path / "notes.txt", 16, 16)


BAD = {
    "of another size": (
        torch.zeros(3, 8, 9),
        r"^image has shape \[3, 8, 9\]; .* \[3, 8, 8\] or \[n, 3, 8, 8\]",
    ),
    "grey": (torch.zeros(1, 8, 8), r"shape \[1, 8, 8\]"),
    "with its channels last": (np.zeros((8, 8, 3)), r"shape \[8, 8, 3\]"),
    "without a picture": (torch.zeros(0, 3, 8, 8), r"shape \[0, 3, 8, 8\]"),
    "of bytes": (torch.full((3, 8, 8), 255, dtype=torch.uint8), r"^image is a tensor of uint8; .* x / 127.5 - 1"),
    "of another range": (torch.full((3, 8, 8), 255.0), r"^image goes from 255 to 255; .* in \[-1, 1\]"),
    "with NaN": (torch.full((3, 8, 8), torch.nan), "^image goes from nan to nan"),
    "sparse": (torch.zeros(3, 8, 8).to_sparse(), r"^image is a tensor of layout torch.sparse_coo; "),
    "that is none": ({"a": 1}, r"^image=\{'a': 1\} must be a picture's file or a folder"),
    "of unknown range": (Image.new("F", (8, 8)), "^image: floating-point pixels have no known range"),
}


@pytest.mark.parametrize(("image", "said"), BAD.values(), ids=BAD)
def test_a_picture_that_is_refused(image, said):
    with pytest.raises(ValueError, match=said) as caught:
        given_pictures(image, 8, 8)
    assert "\n" not in str(caught.value)
