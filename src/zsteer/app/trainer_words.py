"""Words of the config section `trainer`: Lightning's that a command cannot use, and values that the others can have.

Every argument of `pytorch_lightning.Trainer` works as its documentation says, or is refused with what to use instead.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig

from zsteer.settings import flag, real_number, whole_number

LEAVE_OUT = "leave it out"

# Words that a command sets itself or has no use for, and what to do instead.
COMMON = {
    "default_root_dir": "use hydra.run.dir",
    "logger": "use logger",
    **dict.fromkeys(
        (
            *("barebones", "enable_autolog_hparams", "limit_predict_batches", "model_registry"),
            *("reload_dataloaders_every_n_epochs", "use_distributed_sampler"),
        ),
        LEAVE_OUT,
    ),
}
STEERING = {
    **COMMON,
    **dict.fromkeys(
        (
            *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"),
            *("limit_train_batches", "overfit_batches", "fast_dev_run"),
        ),
        "use num_steps",
    ),
    "log_every_n_steps": "use show_every",
    **dict.fromkeys(("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"), "use step_size"),
    **dict.fromkeys(
        (
            *("enable_checkpointing", "enable_model_summary", "sync_batchnorm", "limit_val_batches"),
            *("limit_test_batches", "val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"),
        ),
        LEAVE_OUT,
    ),
}
INVERSION = {
    **STEERING,
    "log_every_n_steps": LEAVE_OUT,
    **dict.fromkeys(("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"), "use optimizer.lr"),
}
TRAINING = {
    **COMMON,
    **dict.fromkeys(("max_epochs", "min_epochs", "min_steps"), "use max_images"),
    "overfit_batches": "use data.num_train",
    "enable_checkpointing": "use checkpoint_minutes",
    "check_val_every_n_epoch": "use trainer.val_check_interval",
    "callbacks": "use callbacks",
    "plugins": LEAVE_OUT,
}
GAN = {
    **TRAINING,
    "max_steps": "use max_images",
    # Automatic optimization's, which cannot know of two optimizers.
    "accumulate_grad_batches": "use gan.accumulate",
    **dict.fromkeys(("gradient_clip_val", "gradient_clip_algorithm"), "use gan.clip_norm"),
    **dict.fromkeys(
        ("limit_val_batches", "val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"),
        "use scores.every_images",
    ),
    "limit_test_batches": "use scores.num_samples",
}


def check(section: DictConfig, refused: Mapping[str, str]) -> None:
    """None of Lightning's words that would do nothing, and no value that Lightning itself takes only to fail by it.

    Raises:
        ValueError: one line for the first word that is wrong.
    """
    for key, remedy in refused.items():
        if section.get(key) is not None and section[key] is not False:
            raise ValueError(f"trainer.{key}={section[key]} cannot be set; {remedy}")
    for key, has_value in VALUES.items():
        if section.get(key) is not None:
            has_value(section[key], f"trainer.{key}")
    most = max(2, os.cpu_count() or 1)
    number = str(section.get("devices"))
    if number.isdecimal() and int(number) > most and section.get("accelerator") == "cpu":
        raise ValueError(f"trainer.devices={number} must be at most {most} on this machine's CPU")


def flag_or_warn(value: Any, key: str) -> None:
    """
    Raises:
        ValueError: neither true nor false nor `warn`.
    """
    if not isinstance(value, bool) and value != "warn":
        raise ValueError(f"{key}={value} must be true, false or warn")


def nodes(value: Any, key: str) -> None:
    """
    Raises:
        ValueError: several nodes, and nothing that starts the others.
    """
    if whole_number(value, key, 1) > 1 and not {"MASTER_ADDR", "SLURM_NTASKS"} & os.environ.keys():
        raise ValueError(f"{key}={value} waits for the other nodes; start the command on each by torchrun or srun")


def steps(value: Any, key: str) -> None:
    """A number, or Lightning's -1 for no limit."""
    if value != -1:
        whole_number(value, key, 1)


def batches(value: Any, key: str) -> None:
    """
    Raises:
        ValueError: neither a whole number of batches nor a share of them.
    """
    if isinstance(value, int):
        whole_number(value, key, 1)
    elif real_number(value, key, above=0.0) > 1 and value % 1:
        raise ValueError(f"{key}={value} must be a whole number of batches, or a share of them up to 1.0")


def batches_if_any(value: Any, key: str) -> None:
    """The same, or 0."""
    if value != 0:
        batches(value, key)


def batches_or_time(value: Any, key: str) -> None:
    """The same, or what Lightning reads as a time."""
    if not isinstance(value, str | Mapping):
        batches(value, key)


def time(value: Any, key: str) -> None:
    """
    Raises:
        ValueError: a number, which could be one of seconds or of hours.
    """
    if not isinstance(value, str | Mapping):
        raise ValueError(f"{key}={value} must be DD:HH:MM:SS, or as in {{hours: 1}}")


VALUES: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(
        (
            *("benchmark", "detect_anomaly", "enable_model_summary", "enable_progress_bar", "inference_mode"),
            "sync_batchnorm",
        ),
        flag,
    ),
    "deterministic": flag_or_warn,
    "log_every_n_steps": lambda value, key: whole_number(value, key, 0),
    "num_nodes": nodes,
    "accumulate_grad_batches": lambda value, key: whole_number(value, key, 1),
    "num_sanity_val_steps": lambda value, key: whole_number(value, key, -1),
    "gradient_clip_val": lambda value, key: real_number(value, key, above=0.0),
    "max_steps": steps,
    "max_time": time,
    "limit_train_batches": batches,
    "limit_val_batches": batches_if_any,
    "limit_test_batches": batches_if_any,
    "val_check_interval": batches_or_time,
}
