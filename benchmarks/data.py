"""The image store against torchvision's CelebA, on one thread; and how soon annotations of CelebA's size are open.

2,000 drawn faces stand in for CelebA's photographs, as JPEGs of its size: decoding does not care what they show.
"""

import io
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from timing import alternate
from torch.utils.data import DataLoader
from torchvision import transforms

from zsteer.data import procedural
from zsteer.data.attributes import CELEBA
from zsteer.data.celeba import find_sources, read_annotations
from zsteer.data.faces import CelebA, scale

NUM_IMAGES, NUM_CELEBA, BATCH_SIZE = 2_000, 202_599, 64


def write_celeba(root: Path, images: np.ndarray, labels: np.ndarray, rows: int) -> None:
    """CelebA's layout with some images, and annotations of `rows` of them; three of its files are never read."""
    base = root / "celeba"
    (base / "img_align_celeba").mkdir(parents=True)
    for number, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).resize((178, 218)).save(file, "JPEG", quality=90)
        (base / "img_align_celeba" / f"{number + 1:06d}.jpg").write_bytes(file.getvalue())
    names = [f"{number + 1:06d}.jpg" for number in range(rows)]
    signs = [" ".join(map(str, row)) for row in labels.astype(int) * 2 - 1]
    lines = [f"{name} {signs[number % len(signs)]}\n" for number, name in enumerate(names)]
    (base / "list_attr_celeba.txt").write_text(f"{rows}\n{' '.join(CELEBA)}\n" + "".join(lines))
    (base / "list_eval_partition.txt").write_text("".join(f"{name} 0\n" for name in names))
    (base / "identity_CelebA.txt").write_text("".join(f"{name} 1\n" for name in names))
    for name in ("list_bbox_celeba.txt", "list_landmarks_align_celeba.txt"):
        (base / name).write_text(f"{rows}\na b\n" + "".join(f"{name} 0 0\n" for name in names))


def main() -> None:
    """Print every ratio."""
    images, labels, _ = (part.numpy() for part in procedural.draw(torch.arange(NUM_IMAGES)))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_celeba(root / "some", images, labels, NUM_IMAGES)
        torchvision.datasets.CelebA._check_integrity = lambda self: True  # it knows the published files' hashes only
        steps = [transforms.Resize(64), transforms.CenterCrop(64), transforms.ToTensor()]
        pipeline = transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.5] * 3)])
        theirs = torchvision.datasets.CelebA(str(root / "some"), split="train", transform=pipeline)
        ours = CelebA(root=root / "some", batch_size=BATCH_SIZE, max_images=10 * NUM_IMAGES)

        def decode() -> None:
            for _ in DataLoader(theirs, BATCH_SIZE, shuffle=True):
                pass

        def read() -> None:
            for pixels, _ in ours.train_dataloader():
                scale(pixels)

        decoding, reading = alternate(decode, read, rounds=5)
        rates = NUM_IMAGES / decoding, 10 * NUM_IMAGES / reading
        print("store {1:,.0f} images/s, torchvision's CelebA {0:,.0f}, on one thread:".format(*rates), end=" ")
        print(f"{rates[1] / rates[0]:.0f} times as many")

        write_celeba(root / "all", images[:1], labels, NUM_CELEBA)
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            read_annotations(find_sources(root / "all"), root / "cache.npz")
            seconds.append(time.perf_counter() - started)
        print("annotations of {:,} images: {:.2f} s the first time, then {:.2f} s".format(NUM_CELEBA, *seconds))


if __name__ == "__main__":
    main()
