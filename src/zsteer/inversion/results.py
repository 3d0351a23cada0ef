"""What an inversion gives: noise, its images, figures, a picture, files, events."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from zsteer.events import Events
from zsteer.files import atomic_write, write_json, write_table
from zsteer.inversion.given import Given
from zsteer.inversion.likeness import FIGURES
from zsteer.pictures import Png, enlarged, save_picture, sheet, to_uint8
from zsteer.results import Result
from zsteer.steering.metrics import noise_norm_percentile

NUM_SHOWN = 16  # pictures


@dataclass(frozen=True, repr=False)
class Inverted(Result):
    """The noise whose images are nearest to the given pictures.

    `table` has a row for each picture, `losses` its distance before each step and after the last.
    """

    noise: Float[Tensor, "n z_dim"]
    images: Float[Tensor, "n 3 h w"]
    given: Given
    settings: dict[str, Any]
    figures: dict[str, float | None]
    table: pd.DataFrame
    losses: Float[Tensor, "steps n"]
    sheet: Png

    @property
    def picture(self) -> Image.Image:
        """The first sixteen pictures, a column each: given, found, their difference; above, the pixel error."""
        return Image.open(io.BytesIO(self.sheet.data))

    @property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        return {**self.settings, **self.figures}

    def write(self, folder: Path) -> None:
        """Write every file of a run folder, `metrics.json` last."""
        with atomic_write(folder / "noise.safetensors") as temporary:
            save_file({"noise": self.noise.contiguous()}, temporary)
        save_picture(folder / "inversion.png", self.sheet)
        write_table(folder / "pictures.csv", self.table, "%.4f")
        events = Events()
        for step, loss in enumerate(self.losses.mean(dim=1).tolist()):
            events.scalar("invert/loss", loss, step)
        events.image("invert/pictures", self.sheet, len(self.losses) - 1)
        # HParams hides runs in which a column is a number here and null there: what is unknown is NaN.
        known = {f"figure/{name}": float("nan") if figure is None else figure for name, figure in self.figures.items()}
        events.hparams(self.settings, known)
        events.save(folder)
        write_json(folder / "metrics.json", self.metrics)

    def report(self, folder: Path) -> str:
        """The figures, and where noise and picture are."""
        return f"{self}\n  {folder / 'noise.safetensors'}\n  {folder / 'inversion.png'}"

    def __str__(self) -> str:
        figures = {name: "–" if figure is None else f"{figure:.3f}" for name, figure in self.figures.items()}
        return "\n".join(f"  {name}: {value}" for name, value in {**self.settings, **figures}.items())


def inverted(
    settings: Mapping[str, Any],
    given: Given,
    noise: Float[Tensor, "n z_dim"],
    found: Float[Tensor, "n 3 h w"],
    table: pd.DataFrame,
    losses: Float[Tensor, "steps n"],
    num_free: int | None = None,
) -> Inverted:
    """What an inversion gives; its figures are means over the pictures of a table (see `likeness`).

    Args:
        num_free: how many of the noise's numbers are no condition.
    """
    settings = {"num_pictures": len(given.names), "num_unreadable": len(given.unreadable), **settings}
    figures = {
        **{name: None if table[name].isna().all() else float(table[name].mean()) for name in FIGURES},
        "pixel_error_median": float(table["pixel_error"].median()),
        "noise_norm_percentile": noise_norm_percentile(noise[:, :num_free]),
    }
    shown = comparison(given.images, found, table["pixel_error"].tolist())
    table = table.assign(picture=given.names)[["picture", *table]]
    return Inverted(noise, found, given, settings, figures, table, losses, shown)


def comparison(given: Float[Tensor, "n 3 h w"], found: Float[Tensor, "n 3 h w"], errors: Sequence[float]) -> Png:
    """The first pictures, a column each: given, found, and found less given around grey; above, the pixel error."""
    given, found = given[:NUM_SHOWN], found[:NUM_SHOWN]
    rows = {"given": given, "found": found, "difference": (found - given) / 2}
    lines = [(label, list(to_uint8(enlarged(images)).permute(0, 2, 3, 1).numpy())) for label, images in rows.items()]
    return sheet(lines, titles=[f"{error:.3f}" for error in errors[: len(given)]])
