"""`python docs/inversion.py [PHOTOS]`: the chain of edits of docs/how-to/photo.md, and what that says of `invert`."""

import sys
import tempfile
from pathlib import Path

from hydra.utils import instantiate
from jaxtyping import Float
from torch import Tensor

import zsteer
from zsteer.app.composition import compose
from zsteer.data.attributes import CELEBA
from zsteer.pictures import enlarged, save_picture, sheet, to_uint8

NUM_IMAGES = 64
NUM_SHOWN = 6
STARTS = (1, 8)
LONG, NUM_OF_LONG = 300, 16  # steps, instead of 100, and the faces that so many are tried for
NEAR = 0.02  # mean absolute error by which a generator's own image counts as found again


def test_faces() -> tuple[Float[Tensor, "n 3 64 64"], Float[Tensor, "n 40"]]:
    """The first drawn faces of the test split, which no network has seen, and their labels."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"data.root={folder}", "data.num_train=1", "data.num_val=1", f"data.num_test={NUM_IMAGES}"]
        data = instantiate(compose("train_gan", words).data)
        ((images, labels),) = data.split_batches("test", NUM_IMAGES)
        return images.float() / 127.5 - 1, labels


def chain() -> None:
    """Smiling faces without glasses: found, with glasses, then without the smile, then with bangs, both being held."""
    images, labels = test_faces()
    has = {name: labels[:, CELEBA.index(name)] > 0 for name in ("Smiling", "Eyeglasses", "Bangs", "Wearing_Hat")}
    fits = has["Smiling"] & ~(has["Eyeglasses"] | has["Bangs"] | has["Wearing_Hat"])
    given = images[fits][:NUM_SHOWN]
    with tempfile.TemporaryDirectory() as folder:
        found, glasses, serious = (Path(folder) / name for name in ("found", "glasses", "serious"))
        shown = {
            "given": given,
            "found": zsteer.invert(given, folder=found).images,
            "+ Eyeglasses": zsteer.steer(target="Eyeglasses", noise=found, folder=glasses).images,
            "− Smiling": zsteer.steer(target="Smiling", edit="remove", noise=glasses, folder=serious).images,
            "+ Bangs": zsteer.steer(target="Bangs", noise=serious).images,
        }
    lines = [(label, list(to_uint8(enlarged(row)).permute(0, 2, 3, 1).numpy())) for label, row in shown.items()]
    save_picture(Path(__file__).parent / "chain.png", sheet(lines))


def row(name: str, image: object, starts: int, num_steps: int = 100) -> None:
    """Invert, and print a line of its table."""
    found = zsteer.invert(image, starts=starts, num_steps=num_steps)
    errors, figures = found.table["pixel_error"], found.figures
    print(
        f"| {name} | {starts} | {num_steps} | {errors.mean():.3f} | {errors.median():.3f} | {errors.max():.3f} "
        f"| {figures['feature_distance_judge']:.2f} | {figures['attributes_kept']:.3f} "
        f"| {(errors <= NEAR).sum()} of {len(errors)} |",
        flush=True,
    )


def main(photos: str | None = None) -> None:
    """Print the table: drawn faces and samples by starts and steps, and a folder of photos."""
    chain()
    print("| pictures | starts | steps | pixel error, mean | median | largest | features | attributes kept | ≤ 0.02 |")
    samples = zsteer.sample(n=NUM_IMAGES, seed=1)
    for starts in STARTS:
        row("samples", samples, starts)
        row("drawn", test_faces()[0], starts)
    for num_steps in (100, LONG):
        row("the first drawn", test_faces()[0][:NUM_OF_LONG], STARTS[-1], num_steps)
    if photos is not None:
        row("photos", photos, STARTS[-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
