"""The files of a steering run: its history, its picture, its events."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from pytorch_lightning.loggers import TensorBoardLogger
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from zsteer.files import whole
from zsteer.steering import History, Rows

FOOTER_HEIGHT = 16
PADDING = 2


def save_history(path: Path, history: History) -> None:
    """Write `noise` `[steps+1, n, z_dim]`, `logits` `[steps+1, n, K]` and `score` `[steps]`, as far as recorded."""
    tensors = {
        "noise": torch.stack(history.noise),
        "logits": torch.stack(history.logits),
        "score": torch.stack(history.scores).mean(dim=1) if history.scores else torch.empty(0),
    }
    with whole(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def picture(history: History, captions: Sequence[str] = ()) -> Float[Tensor, "3 h w"]:
    """The shown images in [0, 1]: one column per image, time downwards, the last row final; captions below."""
    rows = [history.images[step] for step in sorted(history.images)]
    grid = grid_of(torch.cat(rows), columns=len(rows[0]))
    if not captions:
        return grid
    band = Image.new("RGB", (grid.shape[2], FOOTER_HEIGHT), "white")
    draw, width, font = ImageDraw.Draw(band), grid.shape[2] / len(captions), ImageFont.load_default(10)
    for column, caption in enumerate(captions):
        draw.text(((column + 0.5) * width, 2), caption, fill="black", font=font, anchor="mt")
    footer = torch.frombuffer(bytearray(band.tobytes()), dtype=torch.uint8).view(FOOTER_HEIGHT, -1, 3)
    return torch.cat([grid, footer.permute(2, 0, 1) / 255], dim=1)


def grid_of(images: Float[Tensor, "n 3 h w"], columns: int) -> Float[Tensor, "3 height width"]:
    """Images in [-1, 1] as one picture in [0, 1], mapped by (x + 1) / 2; small ones enlarged to 64 pixels."""
    images = images.float()
    if (times := enlarged(images)) > 1:
        images = interpolate(images, scale_factor=times)
    return make_grid(((images + 1) / 2).clamp(0, 1), nrow=columns, padding=PADDING, pad_value=1.0)


def enlarged(images: Float[Tensor, "n 3 h w"]) -> int:
    """How many times larger a picture shows images."""
    return max(1, 64 // images.shape[-1])


def save_picture(path: Path, image: Float[Tensor, "3 h w"]) -> None:
    """Write a picture in [0, 1] as PNG."""
    with whole(path) as temporary:
        to_pil_image(image).save(temporary, format="PNG")


def write_events(
    folder: Path,
    history: History,
    rows: Rows,
    image: Float[Tensor, "3 h w"],
    settings: Mapping[str, Any],
    figures: Mapping[str, float | None],
) -> None:
    """Write TensorBoard events: scalars per step, images at the shown steps, the picture, one HParams row."""
    # A queue that all events fit into, so that nothing waits for the disk.
    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False, max_queue=10_000)
    target = rows.target[:, None]
    for step, (noise, logits) in enumerate(zip(history.noise, history.logits, strict=True)):
        others = (logits - history.logits[0]).scatter(1, target, 0.0)
        scalars = {
            "steer/target_logit": logits.gather(1, target).mean(),
            "steer/other_change": others.norm(dim=1).mean(),
            "steer/noise_norm": noise.norm(dim=1).mean(),
        }
        if step < len(history.scores):
            scalars["steer/score"] = history.scores[step].mean()
        logger.log_metrics(scalars, step)
    for row, (step, images) in enumerate(sorted(history.images.items())):
        height = images.shape[2] * enlarged(images) + PADDING
        strip = image[:, row * height : (row + 1) * height + PADDING]
        logger.experiment.add_image("steer/images", strip, step)
    logger.experiment.add_image("steer/history", image, len(history.scores))
    # HParams hides runs in which a column is a number here and null there: what is unknown is NaN.
    known = {f"figure/{name}": float("nan") if value is None else value for name, value in figures.items()}
    logger.log_hyperparams(dict(settings), known)
    logger.finalize("success")


def table(figures: Mapping[str, float | None], side_effects: Mapping[str, float]) -> str:
    """The figures as lines of text, with the three largest side effects."""
    width = max(map(len, figures))
    lines = [f"  {name:<{width}}  {'–' if value is None else f'{value:.3f}'}" for name, value in figures.items()]
    if figures["gain_judge"] is None:
        lines.append("  unconfirmed: no judge took part, so only the steering classifier says so")
    elif side_effects:
        largest = sorted(side_effects.items(), key=lambda effect: -effect[1])[:3]
        lines.append(f"  {'largest side effects':<{width}}  " + ", ".join(f"{name} {v:.2f}σ" for name, v in largest))
    return "\n".join(lines)
