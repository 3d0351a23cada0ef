"""A folder that cannot be written, a disk that is full: one line, before any work if possible, nothing half-written.

A disk of its own in a namespace of mounts of its own, which takes root's rights.
"""

import os
import shutil
import subprocess
import sys

import pytest
from places import ROOT

SMALL = ("num_steps=2", "num_images=8", "trainer=cpu")
FACES = ("data.num_train=64", "data.num_val=8", "data.num_test=8", "data.batch_size=8")
READ_ONLY = {
    "run": ("steer", *SMALL, "hydra.run.dir={disk}/run"),
    "sweep": ("steer", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir={disk}/sweep"),
    "data": ("prepare_data", "data=procedural", *FACES, "data.root={disk}", "hydra.run.dir={other}/prepared"),
}
FULL = {
    "run": ("steer", *SMALL, "hydra.run.dir={disk}/run"),
    "sweep": ("steer", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir={disk}/sweep"),
    "training": (
        *("train_gan", *FACES, "max_images=64", "judge=none", "trainer=cpu"),
        *("data.root={other}", "hydra.run.dir={disk}/gan"),
    ),
}


@pytest.fixture
def on_disk(tmp_path, torture):
    """Run a command with a disk of some kilobytes, which may be read-only; how it ended, what is there then."""
    if not torture:
        pytest.skip("for make torture")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root's rights, and Linux")
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.mkdir()

    def run(words, kilobytes, read_only):
        script, *words = [word.format(disk=disk, other=other) for word in words]
        mode = "ro" if read_only else "rw"
        mount = f"mount -t tmpfs -o size={kilobytes}k,{mode} tmpfs {disk}"
        shell = f'{mount} && "$@"; code=$?; find {disk} -type f >&3; exit $code'
        listed = tmp_path / "listed"
        command = ["unshare", "-m", "bash", "-c", f"exec 3>{listed}; {shell}", "-"]
        command += [sys.executable, f"scripts/{script}.py", *words]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        return ended, listed.read_text().split()

    return run


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_disk_that_is_read_only_is_a_line(on_disk, name):
    ended, files = on_disk(READ_ONLY[name], 1000, read_only=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert "Read-only file system" in ended.stderr.splitlines()[-1]
    assert not files


@pytest.mark.parametrize("name", FULL)
def test_a_disk_that_is_full_is_a_line_and_leaves_nothing_half_written(on_disk, name):
    ended, files = on_disk(FULL[name], 200, read_only=False)
    assert ended.returncode == 1
    assert any(
        line.startswith("error: ") and "No space left on device" in line for line in ended.stderr.splitlines()
    ), ended.stderr[-2000:]
    assert not [file for file in files if file.endswith((".safetensors", ".png", ".ckpt", ".tmp"))]
