"""How networks are trained: the Trainer, its precision, and going on from a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from zsteer.status import terminate
from zsteer.training.callbacks import ConfiguredOptimizers, LastCheckpoint, SeededSteps
from zsteer.training.checkpoint import Resumed


def trainer_of(cfg: DictConfig, folder: Path | None, *callbacks: Callback, resumed: Resumed | None = None) -> Trainer:
    """The Trainer of a training run: one epoch, which is the whole stream of images; TensorBoard in the run's folder.

    Args:
        folder: where events and checkpoints go; null for none.
        resumed: the checkpoint to go on from.
    """
    kept: list[Callback] = [SeededSteps(cfg.seed), ConfiguredOptimizers()]
    if resumed is not None:
        kept.append(resumed)
    if folder is not None:
        kept.insert(0, LastCheckpoint(folder / "checkpoints" / "last.ckpt", cfg.checkpoint_minutes))
    return instantiate(
        cfg.trainer,
        precision=precision_of(cfg.trainer.precision, cfg.trainer.accelerator),
        max_epochs=1 if resumed is None else resumed.ended_epochs + 1,
        use_distributed_sampler=False,
        logger=folder is not None and TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
        plugins=[InPlaceCheckpoints()],
        enable_checkpointing=False,  # Lightning's looks at the clock only under automatic optimization
        callbacks=[*kept, *callbacks],
        _convert_="all",
    )


class InPlaceCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint where it shall be; Lightning's way leads through the system's temporary folder.

    That one may be full while the run's disk is not, and keeps what a kill leaves behind.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        torch.save(checkpoint, path)


@contextmanager
def told_of_termination(trainer: Trainer) -> Iterator[None]:
    """Leave SIGTERM to Lightning, which ends between two steps, and say what goes on where it left off.

    Raises:
        InterruptedError: SIGTERM came.
    """
    ours = signal.getsignal(signal.SIGTERM) is terminate  # the command line's, which ends at once
    if ours:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    except SIGTERMException as error:
        callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        saved = [callback.path for callback in callbacks if isinstance(callback, LastCheckpoint)]
        remedy = f"ckpt_path={saved[0]} goes on" if saved else "nothing was saved, for want of a folder"
        raise InterruptedError(f"terminated; {remedy}") from error
    finally:
        if ours:
            signal.signal(signal.SIGTERM, terminate)


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
