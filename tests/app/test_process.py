"""Prints cannot fail a command, and a command ends with the one that started it."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from places import ROOT

from zsteer.app.process import unfailing_streams


def stream_to(handle, encoding="utf-8"):
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(handle, "w", closefd=False)), encoding)


def as_own(monkeypatch, stream):
    """Make a stream this process's standard output and error."""
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, stream)


def test_letters_that_a_stream_lacks_are_replaced(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as stream, monkeypatch.context() as patch:
        as_own(patch, stream)
        with unfailing_streams():
            print("0.1σ")
            print("λ", file=sys.stderr)
    assert sorted((tmp_path / "out").read_text().split()) == ["0.1?", "?"]


def test_what_nobody_reads_is_dropped(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stream = stream_to(writer)
    with monkeypatch.context() as patch:
        as_own(patch, stream)
        with unfailing_streams():
            for _ in range(3):
                print("a" * 100_000, flush=True)
    os.close(writer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_behind_a_stream_drops_what_is_printed(monkeypatch):
    with open("/dev/full", "w") as stream, monkeypatch.context() as patch:
        as_own(patch, stream)
        with unfailing_streams():
            print("a" * 100_000, flush=True)


def test_a_closed_stream_takes_what_is_printed(monkeypatch):
    with monkeypatch.context() as patch:
        as_own(patch, None)
        with unfailing_streams():
            print("a")
            sys.stderr.write("a")


def test_a_stream_of_the_callers_own_is_left_to_it(monkeypatch):
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with unfailing_streams():
            assert sys.stdout is stream


def test_a_training_goes_on_when_nobody_reads_and_errors_are_closed(tmp_path):
    sizes = "data.num_train=64 data.num_val=16 data.num_test=16 data.batch_size=16 max_images=64"
    words = f"{sizes} classifier.network.hidden_dim=4 trainer=cpu data.root={tmp_path} hydra.run.dir={tmp_path / 'run'}"
    line = f"{sys.executable} scripts/train_classifier.py {words} 2>&- | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=300, check=False
    )
    assert ended.returncode == 0
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "completed"


def test_a_job_ends_with_the_process_that_started_it(tmp_path):
    child = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from zsteer.app.process import end_with_parent\n"
        "signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[1]).write_text('told'), os._exit(0)))\n"
        "end_with_parent()\n"
        "time.sleep(600)"
    )
    parent = (
        "import os, subprocess, sys\n"
        "from zsteer.sweeps.processes import STARTED_BY\n"
        "environment = {**os.environ, STARTED_BY: str(os.getpid())}\n"
        "subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]], env=environment)\n"
        "os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", parent, child, str(tmp_path / "mark")], timeout=100, check=False)
    assert ended.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 100
    while not (tmp_path / "mark").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
