"""What training does on the way: checkpoints, and a GAN's sample grids and figures."""

import time
from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from zsteer.data import generator as random_source
from zsteer.fidelity import BATCH_SIZE, Embedding, to_uint8
from zsteer.files import whole
from zsteer.gan import GANModule
from zsteer.pictures import grid_of, save_picture

COLUMNS = 8


class LastCheckpoint(Callback):
    """Save the whole state of training every few minutes, at the end and on SIGTERM, always to the same file."""

    def __init__(self, path: Path, minutes: float):
        self.path, self.seconds = path, 60 * minutes
        self.saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_) -> None:
        due = time.monotonic() - self.saved_at >= self.seconds
        if trainer.strategy.broadcast(due):  # the clocks of several processes differ, but all take part in saving
            self._save(trainer)
            self.saved_at = time.monotonic()

    def on_train_end(self, trainer: Trainer, *_) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # which Lightning raises between two batches
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        """Save under a temporary name and rename, since a kill or a full disk must leave the last good file."""
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


class SampleGrid(Callback):
    """Samples of the averaged generator from the same noise throughout, as a picture file and in TensorBoard.

    Args:
        every_images: training images between two grids; one more is drawn at the end.
        num_samples: images in a grid.
    """

    def __init__(self, folder: Path, every_images: int, num_samples: int = 64, seed: int = 0):
        self.folder, self.every_images, self.num_samples, self.seed = folder, every_images, num_samples, seed
        self.next_at = 0

    def on_train_batch_end(self, trainer: Trainer, module: GANModule, *_) -> None:
        if module.num_images >= self.next_at:
            self.next_at = module.num_images - module.num_images % self.every_images + self.every_images
            self._draw(trainer, module)

    def on_train_end(self, trainer: Trainer, module: GANModule) -> None:
        self._draw(trainer, module)

    def _draw(self, trainer: Trainer, module: GANModule) -> None:
        if not trainer.is_global_zero:
            return
        noise = module.typical_noise(self.num_samples, torch.Generator().manual_seed(self.seed))
        grid = grid_of(samples(module, noise).cpu(), COLUMNS)
        save_picture(self.folder / "samples.png", grid)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples/ema", grid, module.num_images)


@torch.no_grad()
def samples(module: GANModule, noise: Tensor) -> Tensor:
    """Images of the averaged generator in eval mode, its own mode left as it was."""
    was_training = module.ema_generator.training
    images = module.ema_generator.eval()(noise)
    module.ema_generator.train(was_training)
    return images


class FidelityScores(Callback):
    """FID, KID, precision and recall of the averaged generator against a split of the data, at intervals.

    Args:
        embedding: of the images, by a network that takes no part in the training.
        every_images: training images between two comparisons; one more is made at the end.
        num_samples: of the generator, from the same noise throughout.
    """

    def __init__(self, embedding: Embedding, split: str, every_images: int, num_samples: int, seed: int = 0):
        self.embedding, self.split, self.every_images = embedding, split, every_images
        self.num_samples, self.seed = num_samples, seed
        self.next_at = every_images
        self.figures: dict[str, float] = {}  # the last
        self._real: Tensor | None = None

    def on_train_batch_end(self, trainer: Trainer, module: GANModule, *_) -> None:
        if module.num_images >= self.next_at:
            self.next_at = module.num_images - module.num_images % self.every_images + self.every_images
            self._score(trainer, module)

    def on_train_end(self, trainer: Trainer, module: GANModule) -> None:
        self._score(trainer, module)

    def _score(self, trainer: Trainer, module: GANModule) -> None:
        """Each process makes its part of the samples, and all of them compare the whole."""
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if self._real is None:
            self._real, _ = self.embedding.of(images for images, _ in data.split_batches(self.split, BATCH_SIZE))
        own = -(-self.num_samples // trainer.world_size)
        source = torch.Generator().manual_seed(self.seed)
        noise = module.typical_noise(own * trainer.world_size, source)[trainer.global_rank * own :][:own]
        fake, _ = self.embedding.of(to_uint8(samples(module, z)) for z in noise.split(BATCH_SIZE))
        if trainer.world_size > 1:
            fake = torch.cat(gather_all_tensors(fake))
        self.figures = self.embedding.figures(self._real, fake, data.store.protocol, self.split, "-ema")
        for logger in trainer.loggers:
            logger.log_metrics(self.figures, step=module.num_images)
