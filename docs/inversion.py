"""Measure what the README says of `invert`, and draw its chain: `python docs/inversion.py [FOLDER OF PHOTOS]`."""

import sys
import tempfile

from hydra.utils import instantiate
from jaxtyping import Float
from torch import Tensor

import zsteer
from zsteer.app.composition import compose

NUM_IMAGES = 64
STARTS = (1, 8, 64)
NEAR = 0.02  # mean absolute error by which a generator's own image counts as found again


def test_faces() -> Float[Tensor, "n 3 64 64"]:
    """The first drawn faces of the test split, which no network has seen."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"data.root={folder}", "data.num_train=1", "data.num_val=1", f"data.num_test={NUM_IMAGES}"]
        data = instantiate(compose("train_gan", words).data)
        ((images, _),) = data.split_batches("test", NUM_IMAGES)
        return images.float() / 127.5 - 1


def row(name: str, image: object, starts: int) -> None:
    """Invert, and print a line of the README's table."""
    found = zsteer.invert(image, starts=starts)
    errors, figures = found.table["pixel_error"], found.figures
    print(
        f"| {name} | {starts} | {errors.mean():.3f} | {errors.median():.3f} | {errors.max():.3f} "
        f"| {figures['feature_distance_judge']:.2f} | {figures['attributes_kept']:.3f} "
        f"| {(errors <= NEAR).sum()} of {len(errors)} |",
        flush=True,
    )


def main(photos: str | None = None) -> None:
    """Print the table: drawn faces and samples by starts, and a folder of photos."""
    print("| pictures | starts | pixel error, mean | median | largest | features (judge) | attributes kept | ≤ 0.02 |")
    samples = zsteer.sample(n=NUM_IMAGES, seed=1)
    for starts in STARTS:
        row("samples", samples, starts)
        row("drawn", test_faces(), starts)
    if photos is not None:
        row("photos", photos, STARTS[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
