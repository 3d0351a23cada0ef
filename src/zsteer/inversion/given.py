"""The pictures whose noise is wanted: from files, from Pillow, or as a tensor."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from zsteer.data.faces import scale
from zsteer.data.photos import fitted, open_photo, photo_files, upright
from zsteer.files import printable

NUM_NAMED = 5  # of the files that cannot be read
WANTED = "it must be floating and in [-1, 1], as x / 127.5 - 1 makes it of 0 to 255"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """Pictures `[n, 3, h, w]` in [-1, 1] with their names, and why files were left out, by name."""

    images: Float[Tensor, "n 3 h w"]
    names: Sequence[str]
    unreadable: Mapping[str, str] = field(default_factory=dict)


def given_pictures(image: Any, height: int, width: int) -> Given:
    """What is given as `image`: a picture's file or a folder of them, a picture of Pillow's, a tensor or an array.

    A picture is cropped to the generator's shape and resized; a tensor `[3, h, w]` or `[n, 3, h, w]` in [-1, 1] has to
    have its size.

    Raises:
        ValueError, FileNotFoundError: no picture that can be read, or a tensor of another shape or range.
    """
    if isinstance(image, str | os.PathLike):
        return read_photos(photo_files(image, "image"), image, height, width)
    if isinstance(image, Image.Image):
        try:
            fit = fitted(upright(image), height, width)
        except (ValueError, OSError) as error:  # of a file that Pillow has opened and not yet read
            raise ValueError(f"image: {error}") from error
        return Given(scale(torch.tensor(fit[None])), ["0"])
    if isinstance(image, Tensor | np.ndarray):
        try:
            tensor = torch.as_tensor(np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image)
        except TypeError as error:
            raise ValueError(f"image is an array of {image.dtype}; {WANTED}") from error
        if tensor.layout != torch.strided:
            raise ValueError(f"image is a tensor of layout {tensor.layout}; {WANTED}")
        images = checked(tensor.detach().cpu(), height, width)
        return Given(images, [str(number) for number in range(len(images))])
    raise ValueError(
        f"image={image} must be a picture's file or a folder of them; in Python also a picture or a tensor"
    )


def read_photos(files: Sequence[Path], path: str | os.PathLike, height: int, width: int) -> Given:
    """The pictures of a folder, or the one of a file; files that cannot be read are named and left out.

    Raises:
        ValueError: none can be read.
    """
    images, unreadable = {}, {}
    for file in tqdm(files, desc="Reading pictures", delay=1, leave=False):
        try:
            images[file.name] = fitted(open_photo(file), height, width)
        except ValueError as error:
            unreadable[file.name] = str(error)
    if not images:
        first, reason = next(iter(unreadable.items()))
        which = "cannot be read" if [Path(path)] == list(files) else f"has no picture that can be read; {first}"
        raise ValueError(f"image={path} {which}: {reason}")
    if unreadable:
        named = printable(", ".join(list(unreadable)[:NUM_NAMED]))
        log.warning("image=%s: %d of %d files cannot be read: %s", path, len(unreadable), len(files), named)
    return Given(scale(torch.tensor(np.stack(list(images.values())))), list(map(printable, images)), unreadable)


def checked(images: Tensor, height: int, width: int) -> Float[Tensor, "n 3 h w"]:
    """A tensor of pictures.

    Raises:
        ValueError: of another shape or type, or with values outside [-1, 1].
    """
    batch = images[None] if images.ndim == 3 else images
    if batch.ndim != 4 or tuple(batch.shape[1:]) != (3, height, width) or len(batch) == 0:
        raise ValueError(
            f"image has shape {list(images.shape)}; it must be [3, {height}, {width}] or [n, 3, {height}, {width}], "
            "the generator's size (a file, or a picture of Pillow's, is cropped and resized)"
        )
    if not batch.is_floating_point():
        raise ValueError(f"image is a tensor of {str(batch.dtype).removeprefix('torch.')}; {WANTED}")
    if not (batch.abs() <= 1).all():  # which NaN is not either
        raise ValueError(f"image goes from {batch.min().item():g} to {batch.max().item():g}; {WANTED}")
    return batch.float()
