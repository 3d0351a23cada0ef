"""What every training does on the way: checkpoints, and random numbers by their place."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from zsteer.data.streams import random_source
from zsteer.files import atomic_write
from zsteer.settings import real_number

AGREE_EVERY = 16  # batches between two moments at which several processes agree whether to save, or to end


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

    def __init__(self, path: Path, minutes: int | float):
        real_number(minutes, "checkpoint_minutes", above=0.0)
        self.path, self.seconds = path, 60 * minutes
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and batch_idx % AGREE_EVERY:
            return
        due = time.monotonic() - self.saved_at >= self.seconds
        if trainer.strategy.broadcast(due):  # the clocks of several processes differ, but all take part in saving
            self._save(trainer, pl_module)
            self.saved_at = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # which Lightning raises between two batches
            self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, module: LightningModule) -> None:
        """Save under a temporary name and rename, since a kill or a full disk must leave the last good file."""
        check_finite(module)
        if trainer.is_global_zero:
            with atomic_write(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)  # takes part in gathering the state; only the main process writes


class Termination(Callback):
    """Has SIGTERM end the Trainer's work between two batches, in all processes between the same two.

    Lightning's own handler tells the other processes at once, in the middle of whatever they are telling one another,
    and may wait for their answer for ever.
    """

    def __init__(self) -> None:
        self.told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def note(*_: Any) -> None:
            self.told = True
            if trainer.world_size == 1:
                self._agree(trainer)

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, note)  # at the end Lightning puts back what was there before its own

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and batch_idx % AGREE_EVERY == 0:
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def _agree(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.told, all=False):
            # Private, because Lightning offers no other way to have it end as by a signal.
            trainer._signal_connector.received_sigterm = True


class ConfiguredOptimizers(Callback):
    """Have the optimizers of a resumed run work by this run's config, where the checkpoint's settings were others.

    What a scheduler moves stays where it left it.
    """

    # What a scheduler of torch's sets at each step.
    SCHEDULED = frozenset({"lr", "betas", "momentum"})

    def __init__(self) -> None:
        self.saved: list[str] = []  # names of the checkpoint's optimizers
        self.names: list[str] = []
        self.settings: list[list[dict[str, Any]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before Lightning restores their state.

        Raises:
            ValueError: they are others than the checkpoint's.
        """
        self.names = [type(optimizer).__name__ for optimizer in trainer.optimizers]
        if self.saved and self.saved != self.names:
            raise ValueError(
                f"ckpt_path was trained by {', '.join(self.saved)}, which cannot become {', '.join(self.names)}; go on "
                "with the same optimizers, or start anew from the weights"
            )
        self.settings = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept = self.SCHEDULED if trainer.lr_scheduler_configs else frozenset()
        for optimizer, groups in zip(trainer.optimizers, self.settings, strict=True):
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                group.update({key: value for key, value in settings.items() if key not in kept})

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": self.names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved = state_dict["optimizers"]


class SeededSteps(Callback):
    """Make torch's random numbers a function of the seed, the rank and the batch, so that a resumed run draws the same.

    Augmentations and dropout draw from them.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        torch.manual_seed(random_source(self.seed, data.position, 3, trainer.global_rank).initial_seed())
