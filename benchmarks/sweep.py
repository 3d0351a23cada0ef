"""A sweep of 200 jobs against its bare arithmetic, the tutorial's loop, and Hydra's own launcher; on the CPU.

Forty attributes, five penalties, eight images, ten steps, with the tutorial's networks at full width. The sweep writes
every file of every job and judges each; the loops write nothing. A tenth of the jobs stands for all where that is said.
"""

import contextlib
import io
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from steering import IMPORTS, plain_loop, process
from torch import Tensor, nn

from zsteer.app import commands
from zsteer.app.composition import compose
from zsteer.data.attributes import CELEBA
from zsteer.networks.inference import frozen
from zsteer.networks.loading import load_networks
from zsteer.steering.objectives import steering_score
from zsteer.steering.rows import Rows

PENALTIES = (0.0, 0.03, 0.1, 0.3, 1.0)
NUM_IMAGES, NUM_STEPS, ROWS = 8, 10, 64
NUM_JOBS = len(CELEBA) * len(PENALTIES)


def bare(generator: nn.Module, classifier: nn.Module, noise: Tensor) -> None:
    """The rows of all jobs through the same frozen networks in the same batches: nothing but the arithmetic."""
    one = [
        Rows.of_job(NUM_IMAGES, target, 1.0, weight, 0.1, torch.arange(len(CELEBA)) != target)
        for target in range(len(CELEBA))
        for weight in PENALTIES
    ]
    together = ROWS // NUM_IMAGES
    for first in range(0, len(one), together):
        rows = Rows.joined(one[first : first + together]).to(torch.device("cpu"), torch.float32)
        z = noise.repeat(len(rows) // NUM_IMAGES, 1).requires_grad_()
        start, total = None, torch.zeros_like(z)
        for _ in range(NUM_STEPS):
            logits = classifier(generator(z))
            start = logits.detach() if start is None else start
            scores = steering_score(logits, start, rows)
            (gradient,) = torch.autograd.grad((scores / rows.job_size).sum(), z)
            total = total + gradient
            z = (z.detach() + total / NUM_STEPS).requires_grad_()
        with torch.no_grad():
            classifier(generator(z))


def sweep(targets: tuple[str, ...], *words: str) -> None:
    """The command, its folder and everything in it included."""
    folder = tempfile.mkdtemp()
    grid = [f"target={','.join(targets)}", f"penalty_weight={','.join(map(str, PENALTIES))}"]
    sys.argv = ["steer.py", "-m", "experiment=tutorial", "trainer=cpu", *grid, *words, f"hydra.sweep.dir={folder}/s"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        commands.steer()
    shutil.rmtree(folder)


def seconds(contender: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    contender()
    return time.perf_counter() - started


def main() -> None:
    """Print every ratio."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    networks = load_networks(compose("steer", ["experiment=tutorial", "judge=none"]))
    pair = (networks.generator, networks.classifier.network)
    generator, classifier = (frozen(network, torch.float32) for network in pair)
    noise = torch.randn(NUM_IMAGES, 64, generator=torch.Generator().manual_seed(0))
    sweep(CELEBA[:1], f"hydra.launcher.max_rows={ROWS}")  # warms up
    bare_time, ours, other_bare = (
        seconds(lambda: bare(generator, classifier, noise)),
        seconds(lambda: sweep(CELEBA, f"hydra.launcher.max_rows={ROWS}")),
        seconds(lambda: bare(generator, classifier, noise)),
    )
    bare_time = (bare_time + other_bare) / 2
    loop = 10 * seconds(lambda: [plain_loop(*pair, noise) for _ in range(NUM_JOBS // 10)])
    imports = seconds(lambda: process(IMPORTS))
    print(f"{NUM_JOBS} jobs: {ours:.1f} s after imports, {ours / bare_time:.2f} times the bare arithmetic", end=" ")
    print(f"({bare_time:.1f} s); {1000 * (ours - bare_time) / NUM_JOBS:.0f} ms a job beyond it")
    faster = loop / (ours + imports)
    print(
        f"with {imports:.1f} s of imports {faster:.2f} times as fast as the tutorial's loop ({loop:.1f} s, of a tenth)"
    )
    basic = 10 * seconds(lambda: sweep(CELEBA[:4], "hydra/launcher=basic"))
    print(f"Hydra's own launcher: {basic:.0f} s (from a tenth of the jobs), {basic / ours:.1f} times as long")


if __name__ == "__main__":
    main()
