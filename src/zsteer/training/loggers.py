"""Where figures are logged: Lightning's loggers of the config group `logger`, or anybody's own."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

# Unless the user says otherwise: W&B does not advertise, and MLflow takes a folder for a store.
ENVIRONMENT = {"WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}


@contextmanager
def open_loggers(cfg: DictConfig, folder: Path | None) -> Iterator[list[Logger]]:
    """The loggers of a config; without a run's folder TensorBoard has nowhere to write.

    Raises:
        ValueError: one cannot be opened.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    wanted = {name: section for name, section in (cfg.logger or {}).items() if section is not None}
    if folder is None:
        wanted.pop("tensorboard", None)
    loggers: list[Logger] = []
    exit_code = 1
    try:
        for name, section in wanted.items():
            loggers.append(_opened(str(name), section))
        yield loggers
        exit_code = 0
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):  # a process has one run of theirs until that is finished
                logger.experiment.finish(exit_code=exit_code)


def _opened(name: str, section: DictConfig) -> Logger:
    try:
        logger = instantiate(section)
        if isinstance(logger, WandbLogger):
            logger._wandb_init.pop("anonymous", None)  # which Lightning gives unasked, and W&B warns of
        if not isinstance(logger, TensorBoardLogger):
            _ = logger.experiment  # which Lightning would open after minutes of other work
    except Exception as error:  # whatever somebody's logger may raise, the remedy is theirs
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "; or stay here with logger.wandb.offline=true" if name == "wandb" else ""
        raise ValueError(f"logger.{name} cannot be opened: {reason}{remedy}") from error
    if not isinstance(logger, Logger):
        raise ValueError(f"logger.{name}._target_={section._target_} must be a Logger of Lightning's")
    return logger


def log_settings(loggers: Sequence[Logger], settings: Mapping[str, Any]) -> None:
    """Log a run's settings before it starts; TensorBoard has them at the end, in one row with the figures."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger._wandb_init.pop("anonymous", None)  # which Lightning gives unasked, and W&B warns of
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(settings))


def log_figures(
    loggers: Sequence[Logger], settings: Mapping[str, Any], figures: Mapping[str, int | float | None], step: int
) -> None:
    """Log a run's figures at its end, as `figure/<name>`; in TensorBoard as its HParams row too."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            # HParams hides runs in which a column is a number here and null there: what is unknown is NaN.
            known = {f"figure/{name}": float("nan") if value is None else value for name, value in figures.items()}
            logger.log_hyperparams(dict(settings), known, step)
        else:
            known = {f"figure/{name}": value for name, value in figures.items() if value is not None}
            logger.log_metrics(known, step)
        logger.finalize("success")
