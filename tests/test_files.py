"""Files are whole or absent, and on the disk before they have their names; what cannot be written is named."""

import errno
import json
import os
import resource
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from zsteer import files
from zsteer.training.fitting import WholeCheckpoints


@pytest.mark.parametrize("content", [{"a": float("nan")}, {"a": object()}])
def test_json_that_cannot_be_written_leaves_no_file(content, tmp_path):
    with pytest.raises((ValueError, TypeError)):
        files.write_json(tmp_path / "a.json", content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"config": {"gan": {"condition": 3}}, "figures": {}}, 3),
        ({"config": {"gan": {}}, "figures": {}}, None),
        ({"config": {"gan": [1]}, "figures": {}}, None),
        ({"config": "gan", "figures": {}}, None),
        ({"config": {"gan": {"condition": 3}}}, None),
        ([{"config": 3}], None),
        (None, None),
    ],
)
def test_what_is_recorded_beside_weights_is_found_in_our_own_form_alone(content, found, tmp_path):
    (tmp_path / "g.json").write_text(json.dumps(content))
    assert files.recorded_at(tmp_path / "g.safetensors", "config", "gan", "condition") == found


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": ' * 100_000, b"1" * 10_000])
def test_damaged_json_beside_weights_is_none(content, tmp_path):
    (tmp_path / "g.json").write_bytes(content)
    assert files.read_sidecar(tmp_path / "g.safetensors") == {}
    assert files.recorded_at(tmp_path / "other.safetensors", "config") is None


def test_file_is_not_there_before_it_is_whole(tmp_path):
    with files.atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("all")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "all"
    assert os.stat(tmp_path / "a.txt").st_mode & 0o444 == 0o444


def test_content_and_then_name_are_on_the_disk(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace

    def synced(handle):
        sync(handle)
        done.append(os.fstat(handle).st_ino)

    def renamed(old, new):
        replace(old, new)
        done.append("renamed")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    files.write_json(tmp_path / "a.json", {})
    assert done == [(tmp_path / "a.json").stat().st_ino, "renamed", tmp_path.stat().st_ino]


NUMBERS = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
PIXELS = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
WRITERS = {
    "text": lambda path: path.write_text("a" * 200_000),
    "table": lambda path: pd.DataFrame({"a": NUMBERS[:20_000].numpy()}).to_csv(path),
    "picture": lambda path: Image.fromarray(PIXELS).save(path, format="PNG"),
    "array": lambda path: np.save(path, NUMBERS.numpy()),
    "arrays": lambda path: np.savez(path, a=NUMBERS.numpy()),
    "safetensors": lambda path: save_file({"a": NUMBERS}, path),
    "checkpoint": lambda path: WholeCheckpoints().save_checkpoint({"a": NUMBERS}, path),
}


@pytest.fixture
def full_disk(monkeypatch):
    """No file can grow beyond 50 kB: as on a full disk, the write itself fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_names_the_file_that_the_disk_has_no_room_for(writer, tmp_path, full_disk):
    path = tmp_path / ("a.npy" if writer == "array" else "a.npz")  # NumPy appends what it misses
    path.write_text("the last good one")
    with pytest.raises(OSError) as failure, files.atomic_write(path) as temporary:
        WRITERS[writer](temporary)
    assert failure.value.filename == str(path)
    assert failure.value.errno == (None if writer == "array" else errno.EFBIG)  # NumPy only tells how much it wrote
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the last good one"]


def test_another_error_of_a_writer_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="^no gradient$"), files.atomic_write(tmp_path / "a"):
        raise RuntimeError("no gradient")
