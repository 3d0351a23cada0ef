"""What a caller in Python keeps as it was: environment, warnings, random numbers; and errors in a line."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zsteer.status import describe


def ignore_lightnings_warnings() -> None:
    """Ignore what Lightning itself makes torch 2.14 and later warn of."""
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)


@contextmanager
def environment_kept() -> Iterator[None]:
    """Leave environment variables and warning filters as they were; Lightning sets some of both, and advertises."""
    before, lightning = dict(os.environ), logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = lightning.level
    try:
        with warnings.catch_warnings():
            ignore_lightnings_warnings()
            lightning.setLevel(max(level, logging.WARNING))
            yield
    finally:
        lightning.setLevel(level)
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def errors_in_a_line() -> Iterator[None]:
    """
    Raises:
        ValueError: instead of Hydra's and YAML's own errors, with what they say in a line.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ValueError(describe(error)) from error


@contextmanager
def torch_state_kept() -> Iterator[None]:
    """Leave torch's and NumPy's random numbers as they were, and compute gradients even where the caller does not."""
    import numpy as np
    import torch

    numbers, devices = np.random.get_state(), range(torch.cuda.device_count())
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        np.random.set_state(numbers)
