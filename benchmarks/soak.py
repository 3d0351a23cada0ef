"""Hours of runs in one process, and of a sweep that starts a process for each job: memory, handles and threads.

    python benchmarks/soak.py one 120
    python benchmarks/soak.py processes 120

A line for each minute, and at the end the medians of the second quarter of the time and of the last.
"""

import contextlib
import io
import logging
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zsteer
from zsteer.app import commands

SMALL = ("num_steps=3", "num_images=2", "trainer=cpu", "+trainer.enable_progress_bar=false")
FACES = ("data.num_train=64", "data.num_val=8", "data.num_test=8", "data.batch_size=8", "max_images=64")
GAN = (*FACES, "trainer=cpu", "judge=none", "generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4")
PARTS = ("minute", "runs", "MB", "handles", "threads")


def standing() -> tuple[float, int, int]:
    """This process's memory in MB, its open files and its threads."""
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    handles = len(list(Path("/proc/self/fd").iterdir()))
    return int(words["VmRSS"].split()[0]) / 1024, handles, int(words["Threads"])


def command(name: str, *words: str) -> None:
    """A command as its script runs it, silently."""
    sys.argv = [f"{Path(__file__).parents[1] / 'scripts' / name}.py", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        getattr(commands, name)()


def one_of_each(root: Path, number: int) -> None:
    """Ten runs of different kinds, files and all: single, swept, summarized, trained, inverted, from Python."""
    folder = root / str(number)
    command("steer", *SMALL, f"seed={number}", f"hydra.run.dir={folder}/run")
    command("steer", "-m", *SMALL, "target=Smiling,Bangs", "penalty_weight=0,1", f"hydra.sweep.dir={folder}/sweep")
    command("summarize", f"sweep={folder}/sweep", f"hydra.run.dir={folder}/summary")
    command("train_gan", *GAN, f"data.root={root}/data", f"hydra.run.dir={folder}/gan")
    image = zsteer.sample(n=1, seed=number)
    zsteer.invert(image, "num_steps=2", "starts=1", "trainer=cpu")
    zsteer.steer(*SMALL, method="ascent")


def many_processes(root: Path, number: int) -> None:
    """A sweep of twenty jobs, each a process of its own."""
    seeds = ",".join(map(str, range(20)))
    words = ("hydra/launcher=processes", "hydra.launcher.num_parallel=1", f"hydra.sweep.dir={root}/{number}")
    command("steer", "-m", *SMALL, f"seed={seeds}", *words)


KINDS: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "one": (one_of_each, 10),
    "processes": (many_processes, 20),
}


def main(kind: str, minutes: float) -> None:
    """Work for so long, and look once a minute."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    work, runs_each = KINDS[kind]
    started, ended, rounds = time.monotonic(), threading.Event(), 0
    seen: list[tuple[float, int, int]] = []

    def look() -> None:
        while not ended.wait(60):
            seen.append(standing())
            row = (len(seen), rounds * runs_each, *seen[-1])
            said = ", ".join(f"{name} {value:.0f}" for name, value in zip(PARTS, row, strict=True))
            print(said, file=sys.__stdout__, flush=True)  # beside what commands say, which goes nowhere

    watching = threading.Thread(target=look)
    watching.start()
    try:
        with tempfile.TemporaryDirectory() as root:
            while time.monotonic() - started < 60 * minutes:
                work(Path(root), rounds)
                rounds += 1
    finally:
        ended.set()
        watching.join()
    quarter = len(seen) // 4
    before, after = (
        [statistics.median(part) for part in zip(*looks, strict=True)]
        for looks in (seen[quarter : 2 * quarter], seen[-quarter:])
    )
    for name, first, last in zip(PARTS[2:], before, after, strict=True):
        print(f"{name}: {first:.0f} in the second quarter, {last:.0f} in the last")
    print(f"{rounds * runs_each} runs in {minutes:g} minutes")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
