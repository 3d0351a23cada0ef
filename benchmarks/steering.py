"""Steering against the tutorial's loop written plainly, alternated in one process; ratios of medians.

The tutorial's networks at full width, 8 images, 10 steps, on the CPU. The plain loop computes the weights' gradients
too and runs batch norm as it stands, as the published code does.
"""

import contextlib
import io
import logging
import os
import subprocess
import sys
import tempfile
from functools import partial

import torch
from hydra.utils import instantiate
from timing import alternate
from torch import Tensor, nn

from zsteer.app import commands
from zsteer.app.composition import CONFIGS, compose
from zsteer.networks.loading import load_networks
from zsteer.steering.methods import method_of
from zsteer.steering.module import TRAINER_SETTINGS, LatentSteering
from zsteer.steering.rows import Rows
from zsteer.steering.session import Session

NUM_IMAGES, NUM_STEPS, TARGET, PENALTY = 8, 10, 31, 0.1
OTHERS = [k for k in range(40) if k != TARGET]

TO_FIRST_STEP = """
import dataclasses, os
from zsteer.app.commands import steer
def after_checks(cfg):
    steer.check(cfg)
    from zsteer.steering.module import LatentSteering
    LatentSteering.training_step = lambda *_: os._exit(0)
dataclasses.replace(steer, check=after_checks)()
"""
IMPORTS = "import torch, torchvision, pytorch_lightning, hydra"


def plain_loop(generator: nn.Module, classifier: nn.Module, noise: Tensor) -> Tensor:
    """The tutorial's loop; gradients accumulate in the noise, and in every weight."""
    noise = noise.clone().requires_grad_()
    start = None
    for _ in range(NUM_STEPS):
        logits = classifier(generator(noise))
        start = logits.detach() if start is None else start
        penalty = torch.norm(logits[:, OTHERS] - start[:, OTHERS], dim=1).mean()
        (logits[:, TARGET].mean() - PENALTY * penalty).backward()
        assert noise.grad is not None
        noise.data += noise.grad / NUM_STEPS
    for network in (generator, classifier):
        network.zero_grad()
    return noise.detach()


def steered(generator: nn.Module, classifier: nn.Module, noise: Tensor, precision: str, times: int = 1) -> Tensor:
    """The same by zsteer, Trainer and all, for `times` as many steps of the same size."""
    cfg = compose("steer", ["experiment=tutorial", f"trainer.precision={precision}", "trainer=cpu"])
    trainer = instantiate(cfg.trainer, **TRAINER_SETTINGS, enable_progress_bar=False)
    rows = Rows.of_job(NUM_IMAGES, TARGET, 1.0, PENALTY, 1 / NUM_STEPS, torch.arange(40) != TARGET)
    method = method_of(cfg.method)
    sigma = torch.ones(40)  # of which this method makes no use
    module = LatentSteering(generator, classifier, noise, rows, method, sigma)
    trainer.fit(module, range(times * NUM_STEPS))
    return module.history.noise[-1]


def whole_job() -> None:
    """One job of the command, its folder and everything in it included."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        sys.argv = ["steer.py", "experiment=tutorial", "trainer=cpu", f"hydra.run.dir={folder}/run"]
        commands.steer()


def method_costs(num_images: int = 16) -> None:
    """Each method's time for an image's step, as a ratio to `ascent`; not of one that needs a condition."""
    names = sorted({path.stem for path in (CONFIGS / "method").glob("*.yaml")} - {"ascent", "condition"})
    names.insert(0, "ascent")
    contenders = []
    for name in names:
        cfg = compose("steer", [f"method={name}", f"num_images={num_images}", "num_steps=12", "trainer=cpu"])
        session = Session(cfg)
        contenders.append(partial(session.steer, [session.job(cfg)], progress_bar=False))
    times = alternate(*contenders, rounds=3)
    costs = [f"{name} {time / times[0]:.2f}" for name, time in zip(names, times, strict=True)]
    print(f"a step of {num_images} images, in units of ascent's ({times[0] / 12:.2f} s): {', '.join(costs)}")


def process(program: str, *words: str) -> None:
    """Run a program in a Python of its own."""
    subprocess.run([sys.executable, "-c", program, *words], check=True, stdout=subprocess.DEVNULL, env=os.environ)


def main() -> None:
    """Print every ratio."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    networks = load_networks(compose("steer", ["experiment=tutorial", "judge=none"]))
    pair = (networks.generator, networks.classifier.network)
    noise = torch.randn(NUM_IMAGES, 64, generator=torch.Generator().manual_seed(0))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {NUM_IMAGES} images, {NUM_STEPS} steps")

    for network in pair:
        network.double()
    exact = plain_loop(*pair, noise.double())
    error = (exact - steered(*pair, noise.double(), "64-true")).abs().max()
    print(f"the plain loop in float64 and zsteer end {error:.1e} apart")
    for network in pair:
        network.float()
    ends = {"the plain loop": plain_loop(*pair, noise), "zsteer": steered(*pair, noise, "32-true")}
    # The loop accumulates gradients across the kinks of ReLU and norm: a rounding there grows, whoever makes it.
    errors = [f"{name} by {(end - exact).abs().max():.1e}" for name, end in ends.items()]
    print(f"in float32, {' and '.join(errors)} off that")

    for precision in ("32-true", "bf16-mixed"):
        plain, once, often = alternate(
            lambda: plain_loop(*pair, noise),
            lambda precision=precision: steered(*pair, noise, precision),
            lambda precision=precision: steered(*pair, noise, precision, times=4),
        )
        steps = (often - once) / 3  # what ten more steps take: setting up cancels
        rate = NUM_IMAGES * NUM_STEPS / steps
        print(f"{precision}: {plain / steps:.2f} times the plain loop's images·steps/s ({rate:.0f}/s)")

    once, often, job = alternate(
        lambda: steered(*pair, noise, "32-true"), lambda: steered(*pair, noise, "32-true", times=4), whole_job
    )
    print(f"Lightning, Hydra, networks, figures, pictures and logs add {job - (often - once) / 3:.2f} s to a job")

    method_costs()

    with tempfile.TemporaryDirectory() as folder:
        imports, first = alternate(
            lambda: process(IMPORTS), lambda: process(TO_FIRST_STEP, f"hydra.run.dir={folder}/run"), rounds=3
        )
    print(f"to the first step: {first / imports:.2f} times the imports ({first:.1f} s, {imports:.1f} s)")


if __name__ == "__main__":
    main()
