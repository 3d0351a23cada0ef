"""Images as pictures: grids, captions, PNG."""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from zsteer.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_HEIGHT = 16
GAP = 4
PADDING = 2


@dataclass(frozen=True)
class Png:
    """A picture as the bytes of a PNG file."""

    data: bytes
    height: int
    width: int


def to_uint8(images: Float[Tensor, "... c h w"]) -> UInt8[Tensor, "... c h w"]:
    """Images in [-1, 1] as they would be stored."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pillow(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """A picture in [0, 1] as Pillow's, each value rounded to the nearest of 256."""
    return to_pil_image((image * 255).round().clamp(0, 255).to(torch.uint8))


def png(image: Float[Tensor, "3 h w"]) -> Png:
    """Encode a picture in [0, 1]."""
    return encoded(pillow(image))


def encoded(image: Image.Image) -> Png:
    """Encode a picture; run lengths make faces as small as zlib's best matches do, in a quarter of the time."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return Png(file.getvalue(), image.height, image.width)


def png_of(figure: "Figure") -> Png:
    """Encode a figure of matplotlib's."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    width, height = figure.canvas.get_width_height()
    return Png(file.getvalue(), height, width)


def save_picture(path: Path, image: Float[Tensor, "3 h w"] | Png) -> None:
    """Write a picture in [0, 1] as PNG."""
    with atomic_write(path) as temporary:
        temporary.write_bytes((image if isinstance(image, Png) else png(image)).data)


def sheet(lines: Sequence[tuple[str, Sequence[np.ndarray | None]]], titles: Sequence[str] = ()) -> Png:
    """Pictures uint8 `[h, w, 3]` of one size in lines that have labels, below the titles of their columns.

    Args:
        lines: each line's label and its pictures; None leaves a gap.
    """
    import matplotlib

    # Pillow's own font lacks λ.
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 11)
    height, width, _ = next(picture for _, line in lines for picture in line if picture is not None).shape
    left = 12 + max(int(font.getlength(text)) for label, _ in lines for text in label.split("\n"))
    top = 20 if titles else PADDING
    columns = max(len(line) for _, line in lines)
    image = Image.new("RGB", (left + columns * (width + PADDING), top + len(lines) * (height + PADDING)), "white")
    draw = ImageDraw.Draw(image)
    for column, title in enumerate(titles):
        draw.text((left + column * (width + PADDING) + width / 2, top / 2), title, "black", font, "mm")
    for row, (label, line) in enumerate(lines):
        y = top + row * (height + PADDING)
        draw.multiline_text((left - 6, y + height / 2), label, "black", font, "rm", align="right")
        for column, picture in enumerate(line):
            if picture is not None:
                image.paste(Image.fromarray(picture), (left + column * (width + PADDING), y))
    return encoded(image)


def grid_of(images: Float[Tensor, "n 3 h w"], columns: int) -> Float[Tensor, "3 height width"]:
    """Images in [-1, 1] as one picture in [0, 1], mapped by (x + 1) / 2; small ones enlarged to 64 pixels."""
    return make_grid(((enlarged(images) + 1) / 2).clamp(0, 1), nrow=columns, padding=PADDING, pad_value=1.0)


def row_of(
    grid: Float[Tensor, "3 height width"], images: Float[Tensor, "n 3 h w"], row: int
) -> Float[Tensor, "3 row_height row_width"]:
    """One row of a grid of images of this size, without what is written beside it."""
    height, width = (side * _times(images) + PADDING for side in images.shape[2:])
    return grid[:, row * height : (row + 1) * height + PADDING, : len(images) * width + PADDING]


def enlarged(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
    """Images of fewer than 64 pixels, each pixel a square of several."""
    times = _times(images)
    return interpolate(images.float(), scale_factor=times) if times > 1 else images.float()


def _times(images: Float[Tensor, "n 3 h w"]) -> int:
    return max(1, 64 // images.shape[-1])


def annotated(
    grid: Float[Tensor, "3 h w"], captions: Sequence[str], labels: Sequence[str], lines: Sequence[str]
) -> Float[Tensor, "3 h2 w2"]:
    """A grid, which stays in the upper left corner, with words.

    Args:
        captions: one below each of its columns.
        labels: one to the right of each of its rows.
        lines: below all.
    """
    font = ImageFont.load_default(10)
    _, height, width = grid.shape
    right = width + GAP + max(int(font.getlength(label)) for label in labels) + GAP
    longest = max((int(font.getlength(line)) for line in lines), default=0) + 2 * GAP
    below = LINE_HEIGHT * (bool(captions) + len(lines))
    canvas = Image.new("RGB", (max(right, longest), height + below), "white")
    draw = ImageDraw.Draw(canvas)
    for row, label in enumerate(labels):
        draw.text((width + GAP, (row + 0.5) * height / len(labels)), label, "black", font, "lm")
    for column, caption in enumerate(captions):
        draw.text(((column + 0.5) * width / len(captions), height + 2), caption, "black", font, "mt")
    for number, line in enumerate(lines, bool(captions)):
        draw.text((GAP, height + number * LINE_HEIGHT + 2), line, "black", font, "lt")
    image = pil_to_tensor(canvas) / 255
    image[:, :height, :width] = grid
    return image
