"""Images of a folder or a zip, whoever made it: found, read and decoded within bounds, with every fault in a line."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from zsteer.data.photos import open_photo

Read = Callable[[str], bytes]

FORMATS = ("JPEG", "PNG")  # that are opened, whatever a file is called
MAX_BYTES, MAX_PIXELS = 16 * 2**20, 16 * 2**20  # of one image; an aligned one has 39,000 pixels


def is_image(name: str) -> bool:
    """Whether a file's name, or its path in a zip, is that of an image; macOS puts files of its own beside each."""
    *folders, name = name.lower().split("/")
    return name.endswith(".jpg") and not name.startswith("._") and "__macosx" not in folders


def has_images(folder: Path) -> bool:
    """Whether there is a folder that has some."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(is_image(entry.name) for entry in entries)


def open_images(images: Path) -> tuple[set[str], Read]:
    """The names of the JPEGs in a folder or zip, and a function that reads one; threads may share it.

    Raises:
        ValueError: the zip is none.
    """
    if images.is_dir():
        files = {name.lower(): images / name for name in os.listdir(images) if is_image(name)}
        return set(files), lambda name: _read_file(files[name.lower()])
    try:
        archive = zipfile.ZipFile(images)
        entries = {
            entry.filename.rsplit("/", 1)[-1].lower(): entry for entry in archive.infolist() if is_image(entry.filename)
        }
    except Exception as error:  # whatever a damaged archive makes of zipfile
        raise ValueError(f"{images} ({images.stat().st_size:,} bytes) {_what_instead(images)}; get it again") from error
    return set(entries), lambda name: _read_entry(archive, entries[name.lower()])


def _read_file(path: Path) -> bytes:
    if not path.is_file():  # but a pipe, say, of which nothing may ever come
        raise OSError("it is no file")
    _check_bytes(path.stat().st_size)
    return path.read_bytes()


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    _check_bytes(entry.file_size)
    with archive.open(entry) as file:
        return file.read(MAX_BYTES)


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")


def _what_instead(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(256).lstrip()
    if start.startswith(b"<"):
        return "is a web page, not a zip: the download was refused"
    return "is not a whole zip" if start.startswith(b"PK") else "is not a zip"


def decode_image(read: Read, name: str, images: Path, expected: tuple[int, int] | None = None) -> Image.Image:
    """One of the images that `read` reads, which have the size `expected`.

    Raises:
        ValueError: it cannot be read, is larger than any that is meant, or of another size.
    """
    try:
        image = open_photo(io.BytesIO(read(name)), FORMATS, MAX_PIXELS)
    except Exception as error:  # whatever damaged, encrypted or hostile files make of zipfile
        raise ValueError(f"{images / name} cannot be read ({' '.join(str(error).split())}); get it again") from error
    if expected not in (None, image.size):
        raise ValueError(f"{images / name} is {image.size}, the others {expected} pixels; is it an aligned image?")
    return image
