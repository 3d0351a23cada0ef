"""Controllable generation: move a GAN's input noise so that one attribute changes and nothing else does."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zsteer.jobs import Steered

__version__ = "0.1.0"


def steer(*overrides: str, config_dir: str | Path | None = None) -> "Steered":
    """Steer from Python, with the words that one would type after `scripts/steer.py`; no file is written.

    Args:
        config_dir: a folder with configs of your own, as after `--config-dir`.

    Raises:
        ValueError, FileNotFoundError: a setting is wrong; the message says which.
    """
    from zsteer import checks
    from zsteer.run import compose

    cfg = compose("steer", overrides, config_dir)
    checks.steer(cfg)
    from zsteer import jobs  # after the checks, because it loads torch

    return jobs.perform(cfg)
