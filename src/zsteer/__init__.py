"""Controllable generation: move a GAN's input noise so that one attribute changes and nothing else does."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zsteer.jobs import Steered


def steer(*overrides: str) -> "Steered":
    """Steer from Python, with the words that one would type after `scripts/steer.py`; no file is written.

    Raises:
        ValueError, FileNotFoundError: a setting is wrong; the message says which.
    """
    from zsteer import checks
    from zsteer.run import compose

    cfg = compose("steer", overrides)
    checks.steer(cfg)
    from zsteer import jobs  # after the checks, because it loads torch

    return jobs.perform(cfg)
