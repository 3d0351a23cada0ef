"""What training keeps on the way: checkpoints, and a GAN's sample grids."""

import time
from pathlib import Path

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from zsteer.gan import GANModule
from zsteer.pictures import grid_of, save_picture

COLUMNS = 8


class LastCheckpoint(Callback):
    """Save the whole state of training every few minutes and at the end, always to the same file."""

    def __init__(self, path: Path, minutes: float):
        self.path, self.seconds = path, 60 * minutes
        self.saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_) -> None:
        due = time.monotonic() - self.saved_at >= self.seconds
        if trainer.strategy.broadcast(due):  # the clocks of several processes differ, but all take part in saving
            trainer.save_checkpoint(self.path)
            self.saved_at = time.monotonic()

    def on_train_end(self, trainer: Trainer, *_) -> None:
        trainer.save_checkpoint(self.path)


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
        noise = torch.randn(self.num_samples, module.z_dim, generator=torch.Generator().manual_seed(self.seed))
        grid = grid_of(samples(module, noise.to(module.device)).cpu(), COLUMNS)
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
