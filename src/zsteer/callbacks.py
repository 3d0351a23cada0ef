"""What training does on the way: checkpoints, and a GAN's sample grids and figures."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from zsteer.data import generator as random_source
from zsteer.fidelity import (
    BATCH_SIZE,
    Embedding,
    enough,
    inceptions_embedding,
    judges_embedding,
)
from zsteer.files import whole
from zsteer.gan import GANModule
from zsteer.pictures import grid_of, save_picture, to_uint8

COLUMNS = 8
CLOCK_EVERY = 16  # batches between two looks at the clock, for which several processes have to agree


def check_finite(module: LightningModule) -> None:
    """
    Raises:
        ValueError: a weight is NaN or infinite.
    """
    for name, weight in module.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(f"training diverged: {name} is NaN or infinite; lower the learning rate")


class LastCheckpoint(Callback):
    """Save the whole state of training every few minutes, at the end and on SIGTERM, always to the same file.

    Weights that are NaN or infinite end the training, and do not replace the last good file.
    """

    def __init__(self, path: Path, minutes: float):
        self.path, self.seconds = path, 60 * minutes
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and batch_idx % CLOCK_EVERY:
            return
        due = time.monotonic() - self.saved_at >= self.seconds
        if trainer.strategy.broadcast(due):  # the clocks of several processes differ, but all take part in saving
            self._save(trainer, module)
            self.saved_at = time.monotonic()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._save(trainer, module)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # which Lightning raises between two batches
            self._save(trainer, module)

    def _save(self, trainer: Trainer, module: LightningModule) -> None:
        """Save under a temporary name and rename, since a kill or a full disk must leave the last good file."""
        check_finite(module)
        if trainer.is_global_zero:
            with whole(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)  # takes part in gathering the state; only the main process writes


class SeededSteps(Callback):
    """Make torch's random numbers a function of the seed, the rank and the batch, so that a resumed run draws the same.

    Augmentations and dropout draw from them.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, *_) -> None:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        torch.manual_seed(random_source(self.seed, data.position, 3, trainer.global_rank).initial_seed())


class EveryImages(Callback, ABC):
    """Does something with a GAN every so many training images, and once more at the end; a resumed run goes on.

    Args:
        every_images: training images between two times.
        first_at: images before the first.
    """

    def __init__(self, every_images: int, first_at: int):
        self.every_images, self.next_at, self.done_at = every_images, first_at, -1

    @abstractmethod
    def act(self, trainer: Trainer, module: GANModule) -> None:
        """What is done; all processes take part."""

    def on_train_start(self, trainer: Trainer, module: GANModule) -> None:
        if module.num_images > 0:  # a resumed run may have a shorter interval than before
            self.next_at = min(self.next_at, self._after(module.num_images))

    def on_train_batch_end(self, trainer: Trainer, module: GANModule, *_) -> None:
        if module.num_images >= self.next_at:
            self.next_at = self._after(module.num_images)
            self._act(trainer, module)

    def _after(self, num_images: int) -> int:
        return num_images - num_images % self.every_images + self.every_images

    def on_train_end(self, trainer: Trainer, module: GANModule) -> None:
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
        every_images: training images between two grids; the first is drawn at once.
        num_samples: images in a grid.
    """

    def __init__(self, folder: Path, every_images: int, num_samples: int = 64, seed: int = 0):
        super().__init__(every_images, first_at=0)
        self.folder, self.num_samples, self.seed = folder, num_samples, seed

    def act(self, trainer: Trainer, module: GANModule) -> None:
        if not trainer.is_global_zero:
            return
        noise = module.typical_noise(self.num_samples, torch.Generator().manual_seed(self.seed))
        grid = grid_of(samples(module, noise).cpu(), COLUMNS)
        save_picture(self.folder / "samples.png", grid)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples/ema", grid, module.num_images)


class FidelityScores(EveryImages):
    """FID, KID, precision and recall of the averaged generator against a split of the data, at intervals.

    Args:
        judge: a network that takes no part in the training, in whose features images are compared; null for none.
        every_images: training images between two comparisons.
        num_samples: of the generator, from the same noise throughout.
        inception: a file of Inception's weights, to compare images in its features too.
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
        super().__init__(every_images, first_at=every_images)
        self.judge, self.inception, self.split = judge, inception, split
        self.num_samples, self.seed = num_samples, seed
        self.figures: dict[str, float] = {}  # the last
        self._real: list[tuple[Embedding, Tensor]] = []

    def on_fit_start(self, trainer: Trainer, module: GANModule) -> None:
        """Look at the data once, and before the training, so that what is wrong with them is said early."""
        data, device = trainer.datamodule, trainer.strategy.root_device  # pyright: ignore[reportAttributeAccessIssue]
        embeddings = [] if self.judge is None else [judges_embedding(self.judge, device)]
        if self.inception is not None:
            embeddings.append(inceptions_embedding(self.inception, device))
        for embedding in embeddings:
            features, _ = embedding.of(images for images, _ in data.split_batches(self.split, BATCH_SIZE))
            self._real.append((embedding, enough(features, self.split)))

    def act(self, trainer: Trainer, module: GANModule) -> None:
        """Each process makes its share of the samples, and all of them compare the whole."""
        protocol = trainer.datamodule.store.protocol  # pyright: ignore[reportAttributeAccessIssue]
        noise = module.typical_noise(self.num_samples, torch.Generator().manual_seed(self.seed))
        own = -(-self.num_samples // trainer.world_size)
        mine = (
            torch.arange(own) + trainer.global_rank * own
        ) % self.num_samples  # the last process repeats the first's
        for embedding, real in self._real:
            fake, _ = embedding.of(to_uint8(samples(module, z)) for z in noise[mine].split(BATCH_SIZE))
            if trainer.world_size > 1:
                fake = torch.cat(gather_all_tensors(fake))[: self.num_samples]
            self.figures |= embedding.figures(real, fake, protocol, self.split, "-ema")
        for logger in trainer.loggers:
            logger.log_metrics(self.figures, step=module.num_images)


@torch.no_grad()
def samples(module: GANModule, noise: Tensor) -> Tensor:
    """Images of the averaged generator in eval mode, its own mode left as it was."""
    was_training = module.ema_generator.training
    images = module.ema_generator.eval()(noise)
    module.ema_generator.train(was_training)
    return images
