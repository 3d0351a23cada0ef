"""The files of a steering run: its history, its picture, its events."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from zsteer.events import Events
from zsteer.files import whole
from zsteer.pictures import Png, captioned, grid_of, png, row_of
from zsteer.steering import History


def save_history(path: Path, history: History, kept: Mapping[str, Tensor] | None = None) -> None:
    """Write `noise` `[steps+1, n, z_dim]`, `logits` `[steps+1, n, K]` and `score` `[steps]`, as far as recorded.

    Args:
        kept: more tensors to keep beside them.
    """
    tensors = {
        "noise": torch.stack(history.noise),
        "logits": torch.stack(history.logits),
        "score": torch.stack(history.scores).mean(dim=1) if history.scores else torch.empty(0),
        **(kept or {}),
    }
    with whole(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def picture(history: History, captions: Sequence[str] = ()) -> Float[Tensor, "3 h w"]:
    """The shown images in [0, 1]: one column per image, time downwards, the last row final; captions below."""
    rows = [history.images[step] for step in sorted(history.images)]
    grid = grid_of(torch.cat(rows), columns=len(rows[0]))
    return captioned(grid, captions) if captions else grid


def write_events(
    folder: Path,
    history: History,
    columns: Sequence[int],
    image: Float[Tensor, "3 h w"],
    settings: Mapping[str, Any],
    figures: Mapping[str, float | None],
    encoded: Png | None = None,
) -> None:
    """Write TensorBoard events: scalars per step, images at the shown steps, the picture, one HParams row.

    Args:
        columns: of the target's logit and, behind it, of what else does not count as change of others.
        encoded: the picture `image` where it is encoded already.
    """
    events = Events()
    noise, logits = torch.stack(history.noise), torch.stack(history.logits)
    change = logits - logits[0]
    change[:, :, columns] = 0.0
    scalars = {
        "steer/target_logit": logits[:, :, columns[0]].mean(dim=1),
        "steer/other_change": change.norm(dim=2).mean(dim=1),
        "steer/noise_norm": noise.norm(dim=2).mean(dim=1),
        "steer/score": torch.stack(history.scores).mean(dim=1),
    }
    for tag, values in scalars.items():
        for step, value in enumerate(values.tolist()):
            events.scalar(tag, value, step)
    for row, (step, images) in enumerate(sorted(history.images.items())):
        events.image("steer/images", png(row_of(image, images, row)), step)
    events.image("steer/history", encoded or png(image), len(history.scores))
    # HParams hides runs in which a column is a number here and null there: what is unknown is NaN.
    known = {f"figure/{name}": float("nan") if value is None else value for name, value in figures.items()}
    events.hparams(settings, known)
    events.save(folder)


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
