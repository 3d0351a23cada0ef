"""Commands in processes that start at once, since a server has imported everything, and can be killed at any moment."""

import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from zsteer.data.attributes import CELEBA

PRELOADED = [
    "zsteer.app.commands",
    "zsteer.classifier.training",
    "zsteer.evaluation.comparison",
    "zsteer.gan.training",
    "zsteer.steering.session",
    "zsteer.sweeps.summary",
]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)
LONGEST = 300  # seconds that a command may take


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (−9 where it was killed), what it said, and how long it ran."""

    code: int | None
    said: str
    seconds: float


def run(name: str, words: list[str], log: Path, kill_after: float | None = None) -> Ended:
    """Run a command as a process of its own, or kill it after some seconds."""
    process = SERVER.Process(target=_command, args=(name, words, str(log)))
    started = time.monotonic()
    process.start()
    process.join(LONGEST if kill_after is None else kill_after)
    if process.is_alive():
        assert kill_after is not None, f"{name} hangs: {log.read_text()[-2000:]}"
        process.kill()
        process.join()
    return Ended(process.exitcode, log.read_text() if log.exists() else "", time.monotonic() - started)


def _command(name: str, words: list[str], log: str) -> None:
    from zsteer.app import commands

    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [f"{Path(__file__).parents[2] / 'scripts' / name}.py", *words]
    getattr(commands, name)()


def make_celeba(root: Path, count: int = 3) -> Path:
    """CelebA's files with images of noise, a third of them in each split."""
    base = root / "celeba"
    (base / "img_align_celeba").mkdir(parents=True)
    for number in range(count):
        Image.effect_noise((178, 218), 50).convert("RGB").save(base / "img_align_celeba" / f"{number}.jpg")
    rows = "".join(f"{number}.jpg {' '.join(['1', '-1'] * 20)}\n" for number in range(count))
    (base / "list_attr_celeba.txt").write_text(f"{count}\n{' '.join(CELEBA)}\n{rows}")
    (base / "list_eval_partition.txt").write_text("".join(f"{number}.jpg {number % 3}\n" for number in range(count)))
    return base


def moments(count: int, longest: float, seed: int) -> list[float]:
    """Random moments of a command that takes so long."""
    numbers = random.Random(seed)
    return [numbers.uniform(0.0, longest) for _ in range(count)]
