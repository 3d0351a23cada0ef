"""What a GAN's training does on the way: sample grids and figures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors
from tqdm import tqdm

from zsteer.data.store import SPLIT_CHOICES
from zsteer.gan.fidelity import (
    BATCH_SIZE,
    FIGURES,
    NUM_NEIGHBOURS,
    Embedding,
    inception_embedding,
    judge_embedding,
    require_enough,
)
from zsteer.gan.module import GANModule
from zsteer.pictures import grid_of, save_picture, to_uint8
from zsteer.settings import choice, existing_file, whole_number
from zsteer.training.callbacks import check_finite

COLUMNS = 8


def gan_of(module: LightningModule) -> GANModule:
    """The module that is trained, which callbacks here take for a GAN's."""
    assert isinstance(module, GANModule)
    return module


class EveryImages(Callback, ABC):
    """Does something with a GAN every so many training images, and once more at the end; a resumed run goes on.

    Args:
        every_images: training images between two times.
        first_at: images before the first.
        key: of the interval in the config, which errors name.

    Raises:
        ValueError: an interval out of range.
    """

    def __init__(self, every_images: int, first_at: int, key: str):
        whole_number(every_images, key, 1)
        self.every_images, self.next_at, self.done_at = every_images, first_at, -1

    @abstractmethod
    def act(self, trainer: Trainer, module: GANModule) -> None:
        """What is done; all processes take part."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = gan_of(pl_module)
        if module.num_images > 0:  # a resumed run may have a shorter interval than before
            self.next_at = min(self.next_at, self._after(module.num_images))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = gan_of(pl_module)
        if module.num_images >= self.next_at:
            self.next_at = self._after(module.num_images)
            self._act(trainer, module)

    def _after(self, num_images: int) -> int:
        return num_images - num_images % self.every_images + self.every_images

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = gan_of(pl_module)
        if self.done_at != module.num_images:
            self._act(trainer, module)

    def _act(self, trainer: Trainer, module: GANModule) -> None:
        check_finite(module)
        module.share_statistics()
        self.act(trainer, module)
        self.done_at = module.num_images

    def state_dict(self) -> dict[str, int]:
        return {"next_at": self.next_at}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.next_at = state_dict["next_at"]


class SampleGrid(EveryImages):
    """Samples of the averaged generator from the same noise throughout, as a picture file and in TensorBoard.

    Args:
        folder: of the picture file; null for none.
        every_images: training images between two grids; the first is drawn at once.
        num_samples: images in a grid.
    """

    def __init__(self, folder: Path | None, every_images: int, num_samples: int = 64, seed: int = 0):
        super().__init__(every_images, first_at=0, key="samples_every")
        self.folder, self.num_samples, self.seed = folder, num_samples, seed
        self.grid: Float[Tensor, "3 h w"] | None = None  # the last

    def act(self, trainer: Trainer, module: GANModule) -> None:
        if not trainer.is_global_zero:
            return
        noise = module.typical_noise(self.num_samples, torch.Generator().manual_seed(self.seed))
        self.grid = grid_of(samples(module, noise).cpu(), COLUMNS)
        if self.folder is not None:
            save_picture(self.folder / "samples.png", self.grid)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples/ema", self.grid, module.num_images)


class FidelityScores(EveryImages):
    """FID, KID, precision and recall of the averaged generator against a split of the data, at intervals.

    Args:
        judge: a network that takes no part in the training, in whose features images are compared; null for none.
        every_images: training images between two comparisons.
        num_samples: of the generator, from the same noise throughout.
        inception: a file of Inception's weights, to compare images in its features too.

    Raises:
        ValueError, FileNotFoundError: a setting out of range, or no such file.
    """

    def __init__(
        self,
        judge: nn.Module | None,
        split: str,
        every_images: int,
        num_samples: int,
        inception: str | None = None,
        seed: int = 0,
    ):
        super().__init__(every_images, first_at=every_images, key="scores.every_images")
        whole_number(num_samples, "scores.num_samples", NUM_NEIGHBOURS + 1)
        choice(split, "scores.split", SPLIT_CHOICES)
        if inception is not None:
            existing_file(inception, "scores.inception")
        self.judge, self.inception, self.split = judge, inception, split
        self.num_samples, self.seed = num_samples, seed
        self.figures: dict[str, float] = {}  # the last
        self._real: list[tuple[Embedding, Tensor]] = []

    @property
    def monitored(self) -> list[str]:
        """The figures that a callback can monitor, such as `fid_judge`: they are a GAN's validation."""
        embeddings = {"judge": self.judge, "inception": self.inception}
        return [f"{figure}_{name}" for name, given in embeddings.items() if given is not None for figure in FIGURES]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the data once, and before the training, so that what is wrong with them is said early."""
        data, device = trainer.datamodule, trainer.strategy.root_device  # pyright: ignore[reportAttributeAccessIssue]
        embeddings = [] if self.judge is None else [judge_embedding(self.judge, device)]
        if self.inception is not None:
            embeddings.append(inception_embedding(self.inception, device, key="scores.inception"))
        for embedding in embeddings:
            batches = data.split_batches(self.split, BATCH_SIZE)
            shown = self._bar(trainer, (images for images, _ in batches), len(batches), f"{self.split} images")
            features, _ = embedding.of(shown)
            self._real.append((embedding, require_enough(features, self.split)))

    def act(self, trainer: Trainer, module: GANModule) -> None:
        """Each process makes its share of the samples, and all of them compare the whole."""
        protocol = trainer.datamodule.store.protocol  # pyright: ignore[reportAttributeAccessIssue]
        noise = module.typical_noise(self.num_samples, torch.Generator().manual_seed(self.seed))
        own = math.ceil(self.num_samples / trainer.world_size)
        # The last process repeats some of the first's.
        mine = (torch.arange(own) + trainer.global_rank * own) % self.num_samples
        for embedding, real in self._real:
            parts = noise[mine].split(BATCH_SIZE)
            images = (to_uint8(samples(module, z)) for z in parts)
            fake, _ = embedding.of(self._bar(trainer, images, len(parts), "samples"))
            if trainer.world_size > 1:
                fake = torch.cat(gather_all_tensors(fake))[: self.num_samples]
            self.figures |= embedding.figures(real, fake, protocol, self.split, "-ema")
        for logger in trainer.loggers:
            logger.log_metrics(self.figures, step=module.num_images)
        # A figure's name begins with that of `monitored`; what follows is its protocol.
        trainer.callback_metrics.update({name.split("/")[0]: torch.tensor(v) for name, v in self.figures.items()})
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if getattr(callback, "monitor", None) is not None:
                callback.on_validation_end(trainer, module)

    def _bar(self, trainer: Trainer, batches: Iterable, num: int, what: str) -> Iterable:
        """The batches, with a bar beside the training's if that has one."""
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        return tqdm(batches, f"Looking at {what}", num, leave=False, disable=not shown)


@torch.no_grad()
def samples(module: GANModule, noise: Tensor) -> Tensor:
    """Images of the averaged generator in eval mode, its own mode left as it was."""
    was_training = module.ema_generator.training
    images = module.ema_generator.eval()(noise)
    module.ema_generator.train(was_training)
    return images
