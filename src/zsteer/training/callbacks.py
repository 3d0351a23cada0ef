"""What every training does on the way: checkpoints, and random numbers by their place."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from zsteer.data.streams import random_source
from zsteer.settings import real_number
from zsteer.status import terminate

AGREE_EVERY = 16  # batches between two moments at which several processes agree whether to save, or to end


def check_finite(module: LightningModule) -> None:
    """
    Raises:
        ValueError: a weight is NaN or infinite.
    """
    for name, weight in module.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(f"training diverged: {name} is NaN or infinite; lower the learning rate")


class Stopped(BaseException):
    """A signal asked a Trainer's work to end, which it did between two steps."""


class LastCheckpoint(Checkpoint):
    """Save the whole state of training every few minutes, at the end and when it is stopped, always to the same file.

    Ctrl-C and SIGTERM stop it between two steps, where its state is whole; a second Ctrl-C ends it at once. Weights
    that are NaN or infinite end the training, and do not replace the last good file. Of the callbacks it comes last,
    and where a validation follows a step it waits for that, so that the file has what the others made of it.
    """

    def __init__(self, path: Path, minutes: int | float):
        real_number(minutes, "checkpoint_minutes", above=0.0)
        self.path, self.seconds = path, 60 * minutes
        self.saved_at = time.monotonic()
        self.signal: int | None = None  # that came
        self.stepping = False  # whether there are steps to stop between

    def hear(self, number: int, frame: Any) -> None:
        """A handler of Ctrl-C and SIGTERM.

        Raises:
            KeyboardInterrupt, Terminated: a second Ctrl-C, or the steps have not begun or are done.
        """
        again = number == self.signal == signal.SIGINT
        self.signal = self.signal or number
        if again or not self.stepping:
            (signal.default_int_handler if number == signal.SIGINT else terminate)(number, frame)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stepping = True
        if signal.getsignal(signal.SIGINT) == self.hear:
            signal.signal(signal.SIGTERM, self.hear)  # Lightning's own would stop in the middle of a validation

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = trainer.val_check_batch  # null where validations go by the clock
        validates = trainer.enable_validation and every is not None and (batch_idx + 1) % every == 0
        if not validates and (trainer.world_size == 1 or (batch_idx + 1) % AGREE_EVERY == 0):
            self._look(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.stepping and not trainer.sanity_checking:
            self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        """Save if it is time; stop if that is asked for."""
        # After the last batch there is a save anyway; what has been accumulated for a step is in no checkpoint.
        if trainer.is_last_batch or (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = time.monotonic() - self.saved_at >= self.seconds
        stop = self._asked(trainer)
        if trainer.strategy.broadcast(due) or stop:  # clocks of several processes differ, but all take part in saving
            self._save(trainer, module)
        if stop:
            raise Stopped

    def _asked(self, trainer: Trainer) -> bool:
        """Whether a signal has come to any of the processes."""
        return trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save before the others' last figures, which may take long."""
        self._save(trainer, pl_module)
        self.stepping = False
        if self._asked(trainer):
            raise Stopped

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, module: LightningModule) -> None:
        check_finite(module)
        trainer.save_checkpoint(self.path)
        self.saved_at = time.monotonic()


class Termination(Callback):
    """Has SIGTERM end the work of several processes between two batches, in all of them between the same two.

    Lightning's own handler tells the other processes at once, in the middle of whatever they are telling one another,
    and may wait for their answer for ever.
    """

    def __init__(self) -> None:
        self.told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def note(*_: Any) -> None:
            self.told = True

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, note)  # at the end Lightning puts back what was there before its own

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % AGREE_EVERY == 0:
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def _agree(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.told, all=False):
            raise Stopped


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
