"""The commands, one function each. Settings are checked before torch is imported."""

from omegaconf import DictConfig

from zsteer import checks
from zsteer.run import main


@main("steer")
def steer(cfg: DictConfig) -> dict:
    """Move noise along one attribute."""
    checks.steer(cfg)
    from zsteer import jobs

    return jobs.run(cfg)
