"""How networks are trained: the Trainer, its precision, and going on from a checkpoint."""

import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from zsteer.files import LAST_CHECKPOINT, atomic_write
from zsteer.status import describe, interrupt_of
from zsteer.training.callbacks import ConfiguredOptimizers, LastCheckpoint, SeededSteps, Stopped, Termination
from zsteer.training.checkpoint import Resumed


def trainer_of(
    cfg: DictConfig,
    folder: Path | None,
    loggers: Sequence[Logger],
    *callbacks: Callback,
    resumed: Resumed | None = None,
) -> Trainer:
    """The Trainer of a training run: one epoch, which is the whole stream of images.

    Args:
        folder: where checkpoints go; null for none.
        resumed: the checkpoint to go on from.
    """
    warnings.filterwarnings("ignore", ".*not supported by the model summary.*")  # whose megabytes are an estimate
    kept: list[Callback] = [SeededSteps(cfg.seed), ConfiguredOptimizers(), *callbacks]
    if resumed is not None:
        kept.append(resumed)
    if cfg.trainer.get("enable_progress_bar", True) and not any(isinstance(given, ProgressBar) for given in kept):
        kept.append(TQDMProgressBar())  # beside which ours can stand; Lightning takes rich's where rich is installed
    kept.append(Termination() if folder is None else LastCheckpoint(folder / LAST_CHECKPOINT, cfg.checkpoint_minutes))
    return made_by_lightning(
        cfg.trainer,
        precision=precision_of(cfg.trainer.precision, cfg.trainer.accelerator),
        max_epochs=1 if resumed is None else resumed.ended_epochs + 1,
        use_distributed_sampler=False,
        logger=list(loggers),
        plugins=[WholeCheckpoints()],
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in kept),
        callbacks=kept,
    )


def made_by_lightning(section: DictConfig, **settings: Any) -> Trainer:
    """The Trainer of a config's section, with settings that are not the user's.

    Raises:
        ValueError: what Lightning finds wrong with the section, such as a device that is not there.
    """
    try:
        trainer = instantiate(section, **settings, _convert_="all")
    except InstantiationException as error:
        if error.__cause__ is None:
            raise
        raise ValueError(f"trainer: {describe(error.__cause__)}") from error
    if not isinstance(trainer, Trainer):
        raise ValueError(f"trainer._target_={section.get('_target_')} must make a pytorch_lightning.Trainer")
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(callback, Callback):
            raise ValueError(f"trainer.callbacks={callback} must be Lightning's, each named by its _target_")
    return trainer


def chosen_callbacks(cfg: DictConfig, figures: Sequence[str]) -> list[Callback]:
    """The callbacks of a config.

    Args:
        figures: that they can monitor; the first of them unless they are told another.

    Raises:
        ValueError: there is no such figure, or something is no callback.
    """
    callbacks = []
    for name, section in (cfg.get("callbacks") or {}).items():
        if section is None:
            continue
        callback = instantiate(_monitoring(section, f"callbacks.{name}.monitor", figures))
        if not isinstance(callback, Callback):
            raise ValueError(f"callbacks.{name}._target_={section._target_} must be a Callback of Lightning's")
        callbacks.append(callback)
    return callbacks


LOWER_IS_BETTER = ("loss", "fid", "kid", "calibration_error", "mean_absolute_error")


def _monitoring(section: DictConfig, key: str, figures: Sequence[str]) -> DictConfig:
    """A callback's section with the figure that it monitors, and whether less of that is better."""
    if "monitor" not in section:
        return section
    if not figures:
        raise ValueError(f"{key}: this training has no figures to monitor; a GAN has some with a judge")
    monitor = figures[0] if section.monitor is None else section.monitor
    if monitor not in figures:
        raise ValueError(f"{key}={monitor} must be one of this training's figures, {', '.join(figures)}")
    told = section.copy()
    told.monitor = monitor
    if "mode" in section and section.mode is None:
        told.mode = "min" if any(name in monitor for name in LOWER_IS_BETTER) else "max"
    return told


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside where it shall be and renames it: a kill or a full disk leaves the last good file.

    Lightning's way leads through the system's temporary folder, which may be full while the run's disk is not.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        # Given a path, torch would not say what kept it from writing.
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)


@contextmanager
def misconfiguration_told() -> Iterator[None]:
    """
    Raises:
        ValueError: what Lightning only finds wrong with its settings when it starts to fit.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {describe(error)}") from error


@contextmanager
def ending_between_steps(trainer: Trainer) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end a training between two steps, and say what goes on where it left off.

    Raises:
        KeyboardInterrupt, InterruptedError: one of them came.
        ValueError: Lightning says that settings do not go together.
    """
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    last = next((callback for callback in callbacks if isinstance(callback, LastCheckpoint)), None)
    handlers = {}
    if last is not None and threading.current_thread() is threading.main_thread():  # the only one that may set them
        handlers = {number: signal.signal(number, last.hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with misconfiguration_told():
            yield
    except Stopped:
        if last is None:
            raise InterruptedError("terminated; nothing was saved, for want of a folder") from None
        remedy = f"ckpt_path={last.path} goes on"
        if last.signal == signal.SIGINT:
            raise KeyboardInterrupt(remedy) from None
        raise InterruptedError(f"terminated; {remedy}") from None
    except SystemExit as error:
        raise interrupt_of(error) from None
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that was not set from Python
                signal.signal(number, handler)


def precision_of(wanted: str, accelerator: str) -> str:
    """`auto` is bfloat16 where the hardware multiplies it faster than float32, and float32 elsewhere.

    That is a GPU since Ampere, or a CPU with AMX; with AVX-512's bfloat16 alone, training takes 1.4 times as long.
    """
    if wanted != "auto":
        return wanted
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    # Private, because torch offers no other way to ask.
    return "bf16-mixed" if torch.cpu._is_amx_tile_supported() else "32-true"
