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


@main("train_gan")
def train_gan(cfg: DictConfig) -> dict:
    """Train a GAN on faces."""
    checks.train(cfg, "generator", "discriminator")
    from zsteer import training

    return training.train_gan(cfg)


@main("train_classifier")
def train_classifier(cfg: DictConfig) -> dict:
    """Train an attribute classifier, or a judge."""
    checks.train(cfg, "classifier")
    from zsteer import training

    return training.train_classifier(cfg)


@main("prepare_data")
def prepare_data(cfg: DictConfig) -> dict:
    """Convert a data set once into an image store."""
    from zsteer import data

    return data.run(cfg)


@main("evaluate")
def evaluate(cfg: DictConfig) -> dict:
    """Score a classifier, a judge or a generator."""
    checks.evaluate(cfg)
    from zsteer import evaluation

    return evaluation.run(cfg)


@main("summarize")
def summarize(cfg: DictConfig) -> dict:
    """A sweep's folder into one table and one picture."""
    from zsteer import sweeps

    return sweeps.run(cfg)
