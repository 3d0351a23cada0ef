"""Anybody's picture files, read as images of one size and three colours."""

import io
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow's readers of what cameras, programs and the web make; it has others, for which few have looked for holes.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def photo_files(path: str | os.PathLike, key: str) -> list[Path]:
    """The file itself, or a folder's files in the order of their names, without hidden ones.

    Raises:
        FileNotFoundError: no such file or folder; the message names the config `key`.
        ValueError: the folder has no file.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{key}={path}: no such file or folder")
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise ValueError(f"{key}={path} has no files; name a picture, or a folder of pictures")
    return files


def open_photo(
    file: str | os.PathLike | io.BytesIO, formats: tuple[str, ...] = FORMATS, max_pixels: int | None = None
) -> Image.Image:
    """A picture file, decoded: the first frame, upright, in RGB.

    Args:
        max_pixels: by default Pillow's limit, beyond which it would only warn.

    Raises:
        ValueError: why it cannot be read, without its name: another format, damaged, or larger than the limit.
    """
    most = max_pixels or Image.MAX_IMAGE_PIXELS or math.inf
    try:
        with Image.open(file, formats=formats) as image:
            if image.width * image.height > most:
                raise ValueError(f"{image.width}×{image.height} pixels, more than {most:,}")
            return upright(image)
    except Image.DecompressionBombError:  # beyond twice Pillow's limit, which its own words call another
        raise ValueError(f"more than {most:,} pixels") from None
    except UnidentifiedImageError:
        raise ValueError(f"it is no image in {', '.join(formats[:-1])} or {formats[-1]}") from None
    except Exception as error:  # decoders raise whatever a damaged file leads to
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from error


def upright(image: Image.Image) -> Image.Image:
    """A picture as its EXIF says it was held, in RGB as Pillow converts, without transparency; 16 bits are scaled.

    Raises:
        ValueError: its numbers have no known range.
    """
    if 0 in image.size:
        raise ValueError("it has no pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):  # which Pillow would clip at 255
        numbers = np.asarray(image)
        if numbers.min() < 0 or numbers.max() > 65535:
            raise ValueError("whole numbers beyond 16 bits have no known range")
        of_bytes = image.mode == "I" and numbers.max() <= 255  # of an array of whole numbers
        image = Image.fromarray((numbers / (1 if of_bytes else 257)).round().astype(np.uint8))
    if image.has_transparency_data:  # of a palette, which Pillow warns of otherwise
        image = image.convert("RGBA")
    return image.convert("RGB")


def fitted(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The largest centred part of this shape of an RGB picture, resized bilinearly, antialiased: uint8 `[3, h, w]`."""
    ratio = min(image.width / width, image.height / height)
    sides = max(1, round(width * ratio)), max(1, round(height * ratio))
    left, top = ((length - side) // 2 for length, side in zip(image.size, sides, strict=True))
    cropped = image.crop((left, top, left + sides[0], top + sides[1]))
    return np.asarray(cropped.resize((width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
