"""Images and targets for training, from one kind of store on disk; the only place that scales images to [-1, 1].

A store holds uint8 images and float targets with names. Procedural faces, CelebA and anybody's own images become such
a store once; from then on a batch is one read from a memory map.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from jaxtyping import Bool, Float, UInt8
from omegaconf import DictConfig
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from zsteer.data.attributes import CELEBA, LABEL_QUALITY, find, resolve
from zsteer.data.celeba import celeba_store, check_complete, find_sources, read_annotations
from zsteer.data.images import open_images
from zsteer.data.store import SPLIT_CHOICES, SPLITS, TRAIN, ImageStore
from zsteer.data.streams import Batches, SequentialBatches, TrainingStream, random_source, share
from zsteer.settings import choice, whole_number

FOLDS = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}


def scale(images: UInt8[Tensor, "n c h w"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "n c h w"]:
    """Map 0 … 255 to [-1, 1] as x / 127.5 - 1, in channels-last memory."""
    images = images.to(torch.float32, memory_format=torch.channels_last)
    return images.div_(127.5).sub_(1).to(dtype)


def mirrored(images: Float[Tensor, "n c h w"], which: Bool[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """Mirror the chosen images left to right."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def is_label(values: np.ndarray) -> bool:
    """Whether a target `[n]` is a label, which has no other values than 0, 1 and, where it is missing, NaN."""
    return bool((np.isin(values, (0, 1)) | np.isnan(values)).all())


class FaceData(LightningDataModule):
    """Batches of images in [-1, 1], [n, 3, h, w], and targets [n, K], from a store; to be used with
    `Trainer(use_distributed_sampler=False)`. A target that is missing is NaN.

    The training loader is a stream of `num_batches` batches over as many passes as that takes; one epoch is the stream.

    Args:
        root: the folder of an image store (subclasses: the folder to find or make one in).
        batch_size: images per step, over all processes together: the stream does not depend on their number.
        max_images: how many images training takes in all, rounded up to whole batches; null where none is trained.
        fold: `even` or `odd` takes every second training image, so that a classifier and its judge share none.
        flip: mirror every second training image at random; wrong for targets with a side, such as pose.
        attributes: names of the targets; null takes CelebA's forty where the store has them and else all.
        on_device: hold all images where the training is, 12 kB for each of 64×64 pixels; `auto` does on a GPU of whose
            free memory they take a quarter at most.

    A training step takes one batch, unless its module sets `batches_per_step`, and `extra_batches` for those of them
    that `max_images` does not count.

    Raises:
        ValueError: a value out of range.
    """

    batches_per_step, extra_batches = 1, 0
    label_quality: Mapping[str, str] = {}  # remarks on the labels of some attributes
    attributes_key = "data.attributes"  # which errors name
    only: str | None = None  # the one split that is needed, where there is one: others need not be rendered for it

    def __init__(
        self,
        *,
        root: str | os.PathLike,
        batch_size: int,
        max_images: int | None = None,
        fold: str = "all",
        flip: bool = False,
        seed: int = 0,
        attributes: str | Sequence[str] | None = None,
        num_workers: int = 0,
        on_device: bool | str = "auto",
    ):
        super().__init__()
        whole_number(batch_size, "data.batch_size", 1)
        if max_images is not None:
            whole_number(max_images, "max_images", 1)
        whole_number(seed, "data.seed", 0)
        whole_number(num_workers, "data.num_workers", 0)
        choice(fold, "data.fold", tuple(FOLDS))
        if on_device not in (True, False, "auto"):
            raise ValueError(f"data.on_device={on_device} must be true, false or auto")
        self.on_device = on_device
        self.root = Path(root)
        self.batch_size, self.max_images, self.fold, self.flip, self.seed = batch_size, max_images, fold, flip, seed
        self.attributes = None if attributes is None else resolve(attributes, key="data.attributes")
        self.num_workers = num_workers
        self._store: ImageStore | None = None
        self._held: Batches | None = None
        # What an earlier run has used: batches of the stream, images in them, and those of them that were trained on.
        self.start = self.drawn = self.counted = 0
        self._transferred = 0

    @property
    def place(self) -> Path:
        """The folder of the store, which may have to be made yet."""
        return self.root

    def check_sources(self) -> None:
        """Look for what the store would be made of, without making it.

        Raises:
            FileNotFoundError, ValueError: something is missing, or does not fit together.
        """

    def open_store(self) -> ImageStore:
        """Open the store, making it if need be; subclasses say how."""
        return ImageStore.open(self.root)

    @property
    def store(self) -> ImageStore:
        """The store, opened (or made) at the first use."""
        if self._store is None:
            self._store = self.open_store()
        return self._store

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the targets, in the order of their columns."""
        return tuple(self.store.names[column] for column in self.columns)

    @property
    def example(self) -> Float[Tensor, "2 c h w"]:
        """Two images, scaled, to try networks on."""
        return scale(torch.tensor(self.store.images[[0, min(1, len(self.store) - 1)]]))

    @property
    def columns(self) -> list[int]:
        """The store's columns that are the targets."""
        names = self.store.names
        if self.attributes is not None:
            return [find(name, names, key=self.attributes_key, owner="this data set") for name in self.attributes]
        return [names.index(name) for name in (CELEBA if set(CELEBA) <= set(names) else names)]

    def require_targets(self) -> None:
        """
        Raises:
            ValueError: there is nothing to learn.
        """
        if not self.names:
            raise ValueError("the data have no targets to learn")

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation over the training images of each continuous target, which they standardise.

        A target is continuous if it has other values than a label's 0 and 1.

        Raises:
            ValueError: it has one value only.
        """
        scales = {}
        targets, train = self.store.targets, self.store.indices(TRAIN)
        for name, column in zip(self.names, self.columns, strict=True):
            if not is_label(targets[:, column]):
                values = targets[train, column]
                values = values[~np.isnan(values)]
                scales[name] = (values.mean(dtype=float).item(), values.std(dtype=float).item())
                if scales[name][1] == 0:
                    raise ValueError(
                        f"{self.attributes_key}: {name!r} is {values[0]} in all training images; leave it out"
                    )
        return scales

    @property
    def rates(self) -> list[float]:
        """How often each label is 1 in the training images where it is known; 1/2 of a continuous target.

        Raises:
            ValueError: always or never, so that its states cannot be weighed alike.
        """
        targets = self.store.targets[self.store.indices(TRAIN)][:, self.columns]
        rates = np.nanmean(targets, axis=0, dtype=float).tolist()
        scales = self.scales
        for name, rate in zip(self.names, rates, strict=True):
            if name not in scales and not 0 < rate < 1:
                raise ValueError(f"balanced=true: all training images have the same {name}; leave it out")
        return [0.5 if name in scales else rate for name, rate in zip(self.names, rates, strict=True)]

    @property
    def num_batches(self) -> int:
        """The length of the training stream with what an earlier run has used of it, on every process.

        Raises:
            ValueError: nobody said how many images.
        """
        if self.max_images is None:
            raise ValueError("max_images=null must be a whole number, 1 or more, where something is trained")
        return self.start + max(0, math.ceil((self.max_images - self.counted) / self._counted_per_step))

    @property
    def _counted_per_step(self) -> int:
        return self.batch_size * (self.batches_per_step - self.extra_batches)

    @property
    def num_images(self) -> int:
        """How many images have been trained on, as `max_images` counts them."""
        return self.counted + (self._transferred - self.start) * self._counted_per_step

    @property
    def position(self) -> int:
        """How many batches of the training stream have been used."""
        return self._transferred

    def prepare_data(self) -> None:
        self.open_store()

    def setup(self, stage: str | None = None) -> None:
        _ = self.columns  # a misspelt attribute is an error before anything is trained

    def train_indices(self) -> np.ndarray:
        """The training images of this fold, as positions in the store."""
        return self.store.indices(TRAIN)[FOLDS[self.fold]]

    def train_targets(self) -> Float[np.ndarray, "n k"]:
        """The targets of the training images of this fold, in the data's own units."""
        return self.store.targets[self.train_indices()][:, self.columns]

    def train_dataloader(self) -> DataLoader:
        indices = self.train_indices()
        if self.batch_size > len(indices):
            raise ValueError(f"data.batch_size={self.batch_size} must be at most {len(indices)}, all training images")
        self._transferred = self.start
        rank, world_size = self._rank()
        stream = TrainingStream(
            indices,
            self.batch_size,
            self.num_batches,
            self.seed,
            rank,
            world_size,
            start=self.start,
            parts=self.batches_per_step,
            drawn=self.drawn,
        )
        return self._loader(stream)

    def val_dataloader(self) -> DataLoader:
        return self._loader(SequentialBatches(self.indices_of("val"), self.batch_size, *self._rank()))

    def test_dataloader(self) -> DataLoader:
        return self._loader(SequentialBatches(self.indices_of("test"), self.batch_size, *self._rank()))

    def split_batches(self, split: str, batch_size: int, most: int | None = None) -> DataLoader:
        """Batches of uint8 images and targets of a split (`train`, `val`, `test` or `all`), once, in order.

        Args:
            most: images, taken evenly from the split where it has more.

        Raises:
            ValueError: another word, or there are none.
        """
        indices = self.indices_of(split)
        if most is not None and most < len(indices):
            indices = indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]
        return self._loader(SequentialBatches(indices, batch_size))

    def indices_of(self, split: str) -> np.ndarray:
        """The images of a split (`train`, `val`, `test` or `all`), as positions in the store.

        Raises:
            ValueError: another word, or there are none.
        """
        choice(split, "split", SPLIT_CHOICES)
        indices = np.arange(len(self.store)) if split == "all" else self.store.indices(SPLITS.index(split))
        if not len(indices):
            raise ValueError(f"the data have no {split} images, which are needed here; prepare some")
        return indices

    def state_dict(self) -> dict[str, int]:
        """Where the training stream goes on, so that a resumed run takes the next images, in whatever batches."""
        drawn = self.drawn + (self._transferred - self.start) * self.batches_per_step * self.batch_size
        return {"start": self.position, "drawn": drawn, "counted": self.num_images}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """
        Raises:
            ValueError: `max_images` is less than what was trained on.
        """
        self.start = self._transferred = int(state_dict["start"])
        # Where an earlier version did not say, its batches had this run's size.
        drawn = self.start * self.batches_per_step * self.batch_size
        self.drawn = int(state_dict.get("drawn", drawn))
        self.counted = int(state_dict.get("counted", self.start * self._counted_per_step))
        if self.max_images is not None and self.counted >= self.max_images + self._counted_per_step:
            raise ValueError(
                f"max_images={self.max_images} must be at least {self.counted}, what ckpt_path was trained on"
            )

    def on_after_batch_transfer(self, batch: Sequence[Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        images, targets = batch
        images = scale(images, targets.dtype)  # Lightning's precision has cast the targets, but leaves integers alone
        if self.trainer is not None and self.trainer.training:
            if self.flip:
                images = mirrored(images, self._flips(self._transferred).to(images.device, non_blocking=True))
            self._transferred += 1
        return images, targets

    def _flips(self, iteration: int) -> Bool[Tensor, " n"]:
        """This rank's part of the flips of one batch, which like the stream do not depend on the number of ranks."""
        num = self.batches_per_step * self.batch_size
        flips = torch.rand(num, generator=random_source(self.seed, iteration, 1)) < 0.5
        return share(flips, self.batches_per_step, *self._rank())

    def _rank(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, sampler: Sampler[np.ndarray]) -> DataLoader:
        # One read from a memory map takes less time than handing its result from a worker to the main process.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # It is: this module's state says where the stream goes on.
        warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
        held = self._held_batches()
        num_workers = 0 if held is not None else self.num_workers
        return DataLoader(
            held or self._batches(),
            sampler=sampler,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=held is None and torch.cuda.is_available(),
        )

    def _batches(self, device: torch.device | None = None) -> Batches:
        scales = {self.names.index(name): scale for name, scale in self.scales.items()}
        return Batches(self.store, self.columns, scales, device)

    def _held_batches(self) -> Batches | None:
        """All images on the training's device, once for all loaders, if they shall be held there."""
        if self.trainer is None or self.on_device is False:
            return None
        device = self.trainer.strategy.root_device
        if self.on_device == "auto":
            room = torch.cuda.mem_get_info(device)[0] / 4 if device.type == "cuda" else 0
            if self.store.images.nbytes > room:
                return None
        if self._held is None:
            self._held = self._batches(device)
        return self._held


class ProceduralFaces(FaceData):
    """Faces drawn by `zsteer.data.procedural`, rendered once into `<root>/procedural-<hash>`.

    Args:
        correlation: `celeba` has CelebA's main dependencies between attributes, `none` draws them independently.
        faces_seed: which faces are drawn; apart from `seed`, so that runs of different seeds share one store.
    """

    def __init__(
        self,
        *,
        num_train: int,
        num_val: int,
        num_test: int,
        correlation: str = "celeba",
        faces_seed: int = 0,
        **training: Any,
    ):
        super().__init__(**training)
        from zsteer.data.procedural import rendering  # here, so that training on CelebA does not need the renderer

        rendering.check_settings(num_train, num_val, num_test, faces_seed, correlation)
        self.settings = (num_train, num_val, num_test, faces_seed, correlation)

    @property
    def place(self) -> Path:
        from zsteer.data.procedural import rendering

        *counts, seed, correlation = self.settings
        return rendering.place(self.root, counts, seed, correlation)[0]

    def open_store(self) -> ImageStore:
        from zsteer.data.procedural import rendering

        return rendering.procedural_store(self.root, *self.settings, only=self.only)


class CelebA(FaceData):
    """CelebA with its forty attributes, and what is known of the quality of their labels.

    Args:
        store: the folder of the converted images; null is `<root>/celeba64`.
        download: let torchvision fetch files that are missing.
        workers: threads that convert; null is one for each core.
    """

    label_quality = LABEL_QUALITY

    def __init__(
        self,
        *,
        store: str | os.PathLike | None = None,
        download: bool = False,
        workers: int | None = None,
        **training: Any,
    ):
        super().__init__(**training)
        if workers is not None:
            whole_number(workers, "data.workers", 1)
        self.settings = (store, download, workers)

    @property
    def place(self) -> Path:
        return Path(self.settings[0] or self.root / "celeba64")

    def open_store(self) -> ImageStore:
        return celeba_store(self.root, *self.settings)

    def check_sources(self) -> None:
        sources = find_sources(self.root)
        check_complete(sources, open_images(sources.images)[0], read_annotations(sources).files)


@dataclass(frozen=True)
class Prepared:
    """A store that is ready: how many images each split has."""

    metrics: dict[str, int]

    def report(self, folder: Path) -> str:
        """The numbers of images."""
        return ", ".join(f"{number} {split} images" for split, number in self.metrics.items())


def prepare_store(cfg: DictConfig) -> Prepared:
    """Make the store of a data config unless it is there."""
    return Prepared(instantiate(cfg.data).store.counts())
