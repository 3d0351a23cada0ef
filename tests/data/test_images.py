"""Images of folders and zips, whatever somebody put there."""

import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from zsteer.data import images
from zsteer.data.images import decode_image, is_image, open_images


def picture(form="JPEG", size=(9, 7), **settings):
    file = io.BytesIO()
    Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)).save(
        file, form, **settings
    )
    return file.getvalue()


def folder_of(tmp_path, content):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def zip_of(tmp_path, content, method=zipfile.ZIP_DEFLATED):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(params=[folder_of, zip_of], ids=["folder", "zip"])
def place(request, tmp_path):
    return lambda content: request.param(tmp_path, content)


def refusal(path, name="a.jpg"):
    """What is said of an image that cannot be read: one line that names it."""
    names, read = open_images(path)
    assert name in names
    with pytest.raises(ValueError) as caught:
        decode_image(read, name, path)
    message = str(caught.value)
    assert message.startswith(f"{path / name} cannot be read (") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("A.JPG", True),
        ("deep/er/a.jpg", True),
        ("._a.jpg", False),
        ("img/._a.jpg", False),
        ("__MACOSX/a.jpg", False),
        ("__MACOSX/img/a.jpg", False),
        ("a.jpg.txt", False),
        ("a.jpg/", False),
    ],
)
def test_what_is_an_image_by_its_name(name, expected):
    assert is_image(name) == expected


def test_images_are_read_by_their_names_in_any_case(place):
    path = place({"A.JPG": picture(), "._A.JPG": b"Mac OS X", "notes.txt": b""})
    names, read = open_images(path)
    assert names == {"a.jpg"}
    assert read("a.jpg") == read("A.jpg") == picture()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_formats_that_are_meant_are_opened_whatever_the_name(place, form):
    _, read = open_images(path := place({"a.jpg": picture(form)}))
    assert decode_image(read, "a.jpg", path).size == (9, 7)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "EPS", "BMP", "WEBP", "PPM", "ICO", "PDF"])
def test_other_formats_are_not_opened(place, form):
    assert "it is no image in JPEG or PNG" in refusal(place({"a.jpg": picture(form, size=(16, 16))}))


def test_an_image_of_another_size_is_named(place):
    _, read = open_images(path := place({"a.jpg": picture()}))
    with pytest.raises(ValueError, match=r"a.jpg is \(9, 7\), the others \(7, 9\) pixels"):
        decode_image(read, "a.jpg", path, (7, 9))


def test_an_image_of_too_many_pixels_is_not_decoded(place):
    data = bytearray(picture("PNG"))
    data[16:24] = struct.pack(">II", 8000, 8000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    assert "8000×8000 pixels, more than 16,777,216" in refusal(place({"a.jpg": bytes(data)}))


def test_a_file_of_too_many_bytes_is_not_read(place, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    assert f"{len(picture()):,} bytes, more than 100" in refusal(place({"a.jpg": picture()}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(folder_of(tmp_path, {}) / "a.jpg")
    assert "it is no file" in refusal(tmp_path / "images")


def patched(path, **fields):
    """Change fields of a zip's only entry, in its own header and in the archive's directory."""
    places = {"flags": (6, 8, "<H"), "method": (8, 10, "<H"), "size": (22, 24, "<I")}
    data = bytearray(path.read_bytes())
    for key, value in fields.items():
        *offsets, form = places[key]
        for signature, offset in zip((b"PK\x03\x04", b"PK\x01\x02"), offsets, strict=True):
            struct.pack_into(form, data, data.index(signature) + offset, value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"flags": 1}, "encrypted"),
        ({"method": 99}, "compression method is not supported"),
        ({"size": 2**31}, "2,147,483,648 bytes, more than 16,777,216"),
        ({"size": 100}, "Bad CRC-32|trunc"),
    ],
    ids=["encrypted", "unknown method", "two gigabytes", "says less than it has"],
)
def test_an_entry_of_a_zip_that_cannot_be_read_is_named(tmp_path, fields, said):
    path = zip_of(tmp_path, {"a.jpg": picture(size=(64, 64))})
    patched(path, **fields)
    assert any(part in refusal(path) for part in said.split("|"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bit_rot_in_a_zip_is_named(tmp_path, method):
    path = zip_of(tmp_path, {"a.jpg": picture(size=(64, 64))}, method)
    data = bytearray(path.read_bytes())
    data[100:140] = bytes(40)
    path.write_bytes(data)
    refusal(path)


def test_a_zip_that_is_none_is_named(tmp_path):
    path = zip_of(tmp_path, {"a.jpg": picture()})
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"images.zip \(\d+ bytes\) is not a (whole )?zip; get it again"):
            open_images(path)
