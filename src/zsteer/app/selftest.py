"""A steering of two faces that every installation has to repeat, against what the bundle has of it."""

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from zsteer.app.composition import compose
from zsteer.files import BUNDLE, atomic_write
from zsteer.steering.session import Session

STEERED = BUNDLE / "steered.safetensors"
WORDS = ("method=ascent", "num_images=2", "num_steps=3", "where=null", "judge=none", "trainer=cpu")
TOLERANCE = 1e-6  # of the noise, in double precision: processors add numbers in different orders


def steered() -> Float[Tensor, "4 2 z_dim"]:
    """The noise at each step."""
    cfg = compose("steer", [*WORDS, "trainer.precision=64-true"])
    session = Session(cfg)
    (history,) = session.steer([session.job(cfg)], progress_bar=False)
    return torch.stack(history.noise)


def deviation() -> float:
    """How far the noise ends up at most from where it should."""
    wanted = load_file(STEERED)["noise"]
    return (steered() - wanted).abs().max().item()


def save_steered() -> None:
    """Write what is to be repeated: once for each bundle."""
    with atomic_write(STEERED) as temporary:
        save_file({"noise": steered().contiguous()}, temporary)
