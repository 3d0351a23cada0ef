"""What a run's `status.json` says of how it was made."""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from places import GOLDEN, GOLDEN_NETWORKS

import zsteer
from zsteer.app import provenance
from zsteer.app.composition import compose
from zsteer.app.provenance import differences, provenance_of, sha256, source

STEER = (*GOLDEN_NETWORKS, "num_images=1", "num_steps=1", "trainer=cpu", "where=null")


def provenance_in(folder):
    return json.loads((folder / "status.json").read_text())["provenance"]


def test_a_run_says_by_what_it_was_made(command):
    ended = command("steer", *STEER, "target=Male")
    about = provenance_in(ended.folder)
    assert shlex.split(about["command"]) == ["zsteer-steer", *STEER, "target=Male"]
    assert about["versions"]["zsteer"] == zsteer.__version__
    assert about["versions"]["python"] == sys.version.split()[0]
    assert about["versions"]["torch"] in torch.__version__
    assert about["machine"]["threads"] == torch.get_num_threads()
    assert set(about["files"]) == {"generator.checkpoint", "classifier.checkpoint"}
    weights = GOLDEN / "pretrained_celeba.pth"
    kept = {"path": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert about["files"]["generator.checkpoint"] == kept
    assert "data" not in about


def test_each_job_of_a_sweep_has_its_own_words_and_shares_what_takes_time(command):
    provenance._sha256.cache_clear()
    ended = command("steer", *STEER, "target=Male,Smiling", sweep=True)
    assert ended.code == 0, ended.err
    jobs = sorted(ended.folder.glob("*/status.json"))
    commands = [shlex.split(provenance_in(job.parent)["command"])[-1] for job in jobs]
    assert commands == ["target=Male", "target=Smiling"]
    assert provenance._sha256.cache_info().misses == 2  # of four files that two jobs read


def test_a_run_that_fails_says_so_too(command):
    ended = command("steer", *STEER, "generator.network.hidden_dim=4")
    status = json.loads((ended.folder / "status.json").read_text())
    assert (ended.code, status["state"], status["provenance"]["name"]) == (1, "failed", "steer")


def test_what_changes_in_a_file_changes_its_hash(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"a")
    first = sha256(photos)
    (photos / "b.png").write_bytes(b"b")
    assert first is not None and sha256(photos) not in (None, first)
    assert sha256(tmp_path / "nothing") is None


def test_files_are_those_that_a_config_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sefa").write_text("a file that is called like a source")
    (tmp_path / "photo.png").write_bytes(b"a photo")
    files = provenance_of("invert", compose("invert", ["image=photo.png"]), [], None)["files"]
    assert files["image"]["sha256"] == hashlib.sha256(b"a photo").hexdigest()
    assert "source" not in provenance_of("directions", compose("directions", ["source=sefa"]), [], None)["files"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_is_known_by_its_commit(tmp_path, monkeypatch):
    package = tmp_path / "src" / "zsteer"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert source.__wrapped__() is None
    (package / "a.py").write_text("1")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    known = source.__wrapped__()
    assert known is not None
    assert len(known["commit"]) == 40 and known["changed"] is False
    (package / "a.py").write_text("2")
    assert source.__wrapped__() == {**known, "changed": True}


def test_differences_are_named():
    then = {
        "versions": {"torch": "2.11.0", "numpy": "2.4"},
        "machine": {"threads": 1},
        "source": {"commit": "a", "changed": False},
        "data": {"old/place": "1f"},
    }
    assert differences(then, {**then, "data": {"new/place": "1f"}}) == []
    now = {"versions": {"torch": "2.15.0", "numpy": "2.4"}, "machine": {"threads": 2}, "source": None}
    assert differences(then, now) == [
        "torch: 2.11.0 then, 2.15.0 now",
        "threads: 1 then, 2 now",
        "commit: a then, None now",
        "source changed: False then, None now",
        "data: 1f then, none now",
    ]
    assert differences({"versions": "hostile"}, {}) == []
