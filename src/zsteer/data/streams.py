"""Which images come next: the training stream, batches of a split in order, and random numbers by their place."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from zsteer.data.store import ImageStore


def random_source(*key: int) -> torch.Generator:
    """A generator on the CPU that is a function of some non-negative numbers."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


@lru_cache(maxsize=4)
def permutation(count: int, seed: int, number: int) -> np.ndarray:
    """The order [count] of the stream's pass `number` over `count` images."""
    return torch.randperm(count, generator=random_source(seed, number)).numpy()


class TrainingStream(Sampler[np.ndarray]):
    """Index arrays of the training batches: one permutation after another, cut into batches without dropping anything.

    Batch i is the positions [i k B, (i + 1) k B) of that stream, whatever the number of processes; of each of its k
    parts rank r of w takes the r-th of w equal shares. So it depends on nothing but (seed, i, r, w), and `start`
    continues a stream anywhere, with batches of another size too.

    Args:
        num_batches: with those before `start`.
        start: batches that an earlier run has taken, and `drawn` the images that were in them; by default batches of
            the present size.
        parts: k, how many times B images a training step uses, one after another.

    Raises:
        ValueError: the batch cannot be shared equally among the processes.
    """

    def __init__(
        self,
        indices: np.ndarray,
        batch_size: int,
        num_batches: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        parts: int = 1,
        drawn: int | None = None,
    ):
        if batch_size % world_size:
            raise ValueError(
                f"data.batch_size={batch_size} must be a multiple of the number of processes, {world_size}: it is the "
                "size of the whole batch that they share"
            )
        self.indices, self.batch_size, self.num_batches, self.seed = indices, batch_size, num_batches, seed
        self.rank, self.world_size, self.start, self.parts = rank, world_size, start, parts
        self.drawn = start * parts * batch_size if drawn is None else drawn

    def __len__(self) -> int:
        return self.num_batches  # with those before `start`: Lightning, resuming, counts them as fetched

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.batch, range(self.start, self.num_batches))

    def batch(self, iteration: int) -> np.ndarray:
        """This rank's indices [parts · batch_size / world_size] of one batch."""
        num = self.parts * self.batch_size
        first = self.drawn + (iteration - self.start) * num
        own = share(torch.arange(first, first + num), self.parts, self.rank, self.world_size).numpy()
        passes, positions = np.divmod(own, len(self.indices))
        orders = [permutation(len(self.indices), self.seed, int(p))[positions[passes == p]] for p in np.unique(passes)]
        return self.indices[np.concatenate(orders)]


def share(values: Tensor, parts: int, rank: int, world_size: int) -> Tensor:
    """A rank's equal share of each of the parts of a batch's values [n, ...], parts one after another."""
    return values.unflatten(0, (parts, world_size, -1))[:, rank].flatten(0, 1)


class SequentialBatches(Sampler[np.ndarray]):
    """Index arrays of contiguous batches: each image once, on one rank.

    Every rank has the same number of batches, of sizes that differ by one at most, because data-parallel modules
    synchronise at each batch.

    Raises:
        ValueError: fewer images than ranks.
    """

    def __init__(self, indices: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1):
        if len(indices) < world_size:
            raise ValueError(f"{len(indices)} images cannot be shared by {world_size} processes; use fewer devices")
        largest = math.ceil(len(indices) / world_size)
        per_rank = max(2, batch_size // world_size)  # 2, or a rank with one image fewer would have an empty batch
        own = np.array_split(indices, world_size)[rank]
        self.batches = np.array_split(own, math.ceil(largest / per_rank))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)


class Batches(Dataset):
    """Whole batches of a store: an index array [m] gives uint8 images [m, 3, h, w] and float targets [m, K].

    Args:
        scales: mean and standard deviation of the columns (of those chosen) to be standardised.
        device: where to hold all images and targets; null reads each batch from the memory map.
    """

    def __init__(
        self,
        store: ImageStore,
        columns: Sequence[int],
        scales: Mapping[int, tuple[float, float]],
        device: torch.device | None = None,
    ):
        self.store = store
        self.targets = np.ascontiguousarray(store.targets[:, list(columns)])
        for column, (mean, deviation) in scales.items():
            self.targets[:, column] = (self.targets[:, column] - mean) / deviation
        self.held: tuple[Tensor, Tensor] | None = None
        if device is not None:
            self.held = torch.tensor(store.images, device=device), torch.tensor(self.targets, device=device)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        if self.held is not None:
            images, targets = self.held
            chosen = torch.from_numpy(indices).to(images.device, non_blocking=True)
            return images[chosen], targets[chosen]
        return torch.from_numpy(self.store.images[indices]), torch.from_numpy(self.targets[indices])
