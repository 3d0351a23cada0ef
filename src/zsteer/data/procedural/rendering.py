"""Drawn faces as an image store, rendered once."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from zsteer.data.attributes import CELEBA, EXCLUSIVE, RATES
from zsteer.data.procedural import FACTORS, People, draw, drawing, people, population
from zsteer.data.store import SPLITS, ImageStore, build_store, is_complete
from zsteer.settings import choice, whole_number

# Each split of the procedural faces has its own range of indices, so that the test faces stay the same whatever the
# number of training faces.
_SPLIT_STRIDE = 10_000_000


def procedural_store(
    root: str | os.PathLike,
    num_train: int,
    num_val: int,
    num_test: int,
    seed: int = 0,
    correlation: str = "celeba",
    only: str | None = None,
) -> ImageStore:
    """Procedural faces with CelebA's 40 attributes and the continuous factors as targets, rendered once.

    The folder's name carries a hash of the settings, the renderer and the attributes' rates and exclusions, so that a
    change of any renders anew.

    Args:
        only: the split that is needed: as long as the store of all three is not there, one of this split alone will do.

    Raises:
        ValueError: a number out of range, or an unknown correlation.
    """
    counts = check_settings(num_train, num_val, num_test, seed, correlation)
    folder, made = place(root, counts, seed, correlation)
    if only in SPLITS and not is_complete(folder):
        counts = [count if split == only else 0 for split, count in zip(SPLITS, counts, strict=True)]
        folder, made = place(root, counts, seed, correlation)
    splits = np.repeat(np.arange(3), counts)
    offsets = _SPLIT_STRIDE * np.arange(3) - np.cumsum([0, *counts[:-1]])

    def fill(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        torch.set_num_threads(1)  # of this worker: many that draw side by side are faster than one's many that wait
        drawn = draw(torch.from_numpy(indices + offsets[splits[indices]]), seed, correlation)
        images, attributes, factors = map(np.asarray, drawn)
        return images, np.concatenate([attributes, factors], axis=1)

    num_threads = torch.get_num_threads()
    try:
        return build_store(
            folder,
            fill,
            splits,
            CELEBA + tuple(FACTORS),
            protocol="procedural64-uint8",
            made=made,
            workers=num_threads,
            title="Rendering faces",
        )
    finally:
        torch.set_num_threads(num_threads)


def people_of(split: str, numbers: torch.Tensor, seed: int, correlation: str) -> People:
    """People of a split, by their numbers in it."""
    return people(numbers + _SPLIT_STRIDE * SPLITS.index(split), seed, correlation)


def place(root: str | os.PathLike, counts: list[int], seed: int, correlation: str) -> tuple[Path, dict[str, object]]:
    """Where the store of some faces is, and what it is made of."""
    source = b"".join(Path(str(module.__file__)).read_bytes() for module in (population, drawing))
    renderer = hashlib.sha256(source + repr((RATES, EXCLUSIVE)).encode()).hexdigest()[:16]
    made = {"counts": counts, "seed": seed, "correlation": correlation, "renderer": renderer}
    name = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:8]
    return Path(root) / f"procedural-{name}", made


def check_settings(num_train: int, num_val: int, num_test: int, seed: int, correlation: str) -> list[int]:
    """The numbers of training, validation and test faces.

    Raises:
        ValueError: a number out of range, or an unknown correlation.
    """
    for key, value in (("num_train", num_train), ("num_val", num_val), ("num_test", num_test)):
        whole_number(value, f"data.{key}", 1, _SPLIT_STRIDE)
    whole_number(seed, "data.faces_seed", 0)
    choice(correlation, "data.correlation", population.CORRELATIONS)
    return [num_train, num_val, num_test]
