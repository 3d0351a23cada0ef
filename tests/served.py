"""TensorBoard, and the page of `explore`, on this machine, for tests that look at them."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from places import ROOT


@contextmanager
def tensorboard(folder, log):
    """A TensorBoard of our own on a free port of this machine: its address."""
    program = (sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", "0", "--load_fast", "false")
    program += ("--samples_per_plugin", "images=1000")  # as the README says: 0, which once meant all, now means none
    with log.open("w") as file, subprocess.Popen([str(word) for word in program], stdout=file, stderr=file) as process:
        try:
            for _ in range(600):
                if found := re.search(r"http://localhost:\d+", log.read_text()):
                    yield found.group()
                    return
                time.sleep(0.1)
            pytest.fail(log.read_text())
        finally:
            process.terminate()


# Python ends, and says why, when it is about to connect to another machine or asks for its address.
HERE_ALONE = """
import os
import sys

def look(event, arguments):
    if event == "socket.connect":
        place = arguments[1][0] if isinstance(arguments[1], tuple) else "127.0.0.1"
    elif event == "socket.getaddrinfo":
        place = arguments[0]
    else:
        return
    if place not in ("127.0.0.1", "::1", "localhost", None):
        print("ASKED FOR", place, flush=True)
        os._exit(3)

sys.addaudithook(look)
"""


@contextmanager
def live_page(log, *words):
    """The page of `explore` on a free port of this machine: its process and its address."""
    (log.parent / "site").mkdir()
    (log.parent / "site" / "sitecustomize.py").write_text(HERE_ALONE)
    command = [sys.executable, "scripts/explore.py", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": f"{log.parent / 'site'}:{os.environ.get('PYTHONPATH', '')}"}
    with (
        log.open("w") as file,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file) as process,
    ):
        try:
            for _ in range(1200):
                if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
                    yield process, found.group()
                    return
                if process.poll() is not None:
                    break
                time.sleep(0.1)
            pytest.fail(log.read_text())
        finally:
            process.kill()
