"""What ever more jobs cost, and one job of ever more images; each in a process of its own.

    python benchmarks/growth.py jobs 100 300 1000 3000
    python benchmarks/growth.py images 100 1000 10000

The first sweeps seeds, an image each; summarizes once more; and waits until TensorBoard's server knows every run. The
second steers for 100 steps, all of which the history keeps, as it keeps of 1,000 by `record_every=10`. Its networks are
random and of width 2: what a run keeps does not depend on them, and by the bundled ones it would take hours.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import torch

from zsteer.networks import Classifier, Generator

SCRIPTS = Path(__file__).parents[1] / "scripts"
SMALL = ("method=ascent", "num_steps=10", "show_every=5", "num_images=1", "trainer=cpu")
NARROW = {"generator": Generator(64, 3, 2), "classifier": Classifier(3, 40, 2)}
LONG = ("method=ascent", "num_steps=100", "show_every=100", "judge=none", "trainer=cpu")
PORT = 6299


def cost(script: str, *words: str) -> tuple[float, float]:
    """Seconds that a command takes, and the most memory that it had, in MB."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, SCRIPTS / f"{script}.py", *words], stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        said.seek(0)
        assert os.waitstatus_to_exitcode(status) == 0, said.read().decode()[-2000:]
    return seconds, used.ru_maxrss / 1024


def until_tensorboard_knows(folder: Path, count: int) -> float:
    """Seconds from the start of TensorBoard until its server lists so many runs."""
    started = time.perf_counter()
    words = ["tensorboard.main", "--logdir", str(folder), "--port", str(PORT)]
    with subprocess.Popen([sys.executable, "-m", *words], stderr=subprocess.DEVNULL) as server:
        try:
            while True:
                time.sleep(0.2)
                try:
                    with urllib.request.urlopen(f"http://localhost:{PORT}/data/runs") as answer:
                        if len(json.load(answer)) >= count:
                            return time.perf_counter() - started
                except OSError:
                    continue
        finally:
            server.kill()


def jobs(counts: Sequence[int]) -> None:
    """A line for each number of jobs."""
    for count in counts:
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / "sweep"
            seconds, most = cost("steer", "-m", *SMALL, f"seed=range({count})", f"hydra.sweep.dir={folder}")
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            again, _ = cost("summarize", f"sweep={folder}", f"hydra.run.dir={root}/summary")
            known = until_tensorboard_knows(folder, count + 1)
        print(
            f"{count} jobs: {seconds:.0f} s, {1000 * seconds / count:.0f} ms and {size / count / 1000:.0f} kB a job, "
            f"{most:.0f} MB of memory; summarize {again:.1f} s; TensorBoard {known:.1f} s",
            flush=True,
        )


def images(counts: Sequence[int]) -> None:
    """A line for each number of images."""
    for count in counts:
        with tempfile.TemporaryDirectory() as root:
            words = [*LONG, f"num_images={count}", f"hydra.run.dir={root}/run"]
            for role, network in NARROW.items():
                torch.save(network.state_dict(), f"{root}/{role}.pth")
                words += [f"{role}=tutorial", f"{role}.network.hidden_dim=2", f"{role}.checkpoint={root}/{role}.pth"]
            seconds, most = cost("steer", *words)
            size = (Path(root) / "run" / "history.safetensors").stat().st_size
        print(f"{count} images: {seconds:.0f} s, {most:.0f} MB of memory, a history of {size / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    {"jobs": jobs, "images": images}[sys.argv[1]](list(map(int, sys.argv[2:])))
