"""A script as a process, and what a sweep's folder holds."""

import csv
import os
import subprocess
import sys

from places import ROOT
from safetensors.torch import load_file

QUICK = ("num_steps=2", "num_images=2", "method=ascent", "judge=none")


def script(name, *words, **environment):
    """A script as a process of its own, which need not succeed."""
    return subprocess.run(
        [sys.executable, f"scripts/{name}.py", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def jobs_of(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def history_of(folder):
    return load_file(folder / "history.safetensors")
