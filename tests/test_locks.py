"""A folder belongs to one run at a time, until its process ends, however it ends."""

import subprocess
import sys

import pytest

from zsteer.locks import in_use


def test_a_folder_in_use_is_refused_and_free_again_afterwards_without_a_trace(tmp_path):
    folder = tmp_path / "run"
    with in_use(folder, "folder"):
        with pytest.raises(ValueError, match=f"^folder={folder} is in use by another run"), in_use(folder, "folder"):
            pass
        with in_use(tmp_path / "other", "folder"):
            pass
    assert list(folder.iterdir()) == []
    with in_use(folder, "folder"):
        pass


def test_a_killed_process_keeps_no_folder(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from zsteer.locks import in_use\n"
        "with in_use(Path(sys.argv[1]), 'folder'): print('mine', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        with pytest.raises(ValueError, match="in use"), in_use(tmp_path, "folder"):
            pass
        process.kill()
    with in_use(tmp_path, "folder"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_other_processes_of_a_distributed_run_share_their_first_ones_folder(tmp_path, monkeypatch):
    with in_use(tmp_path, "folder"):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with in_use(tmp_path, "folder"):
            pass
        monkeypatch.delenv("LOCAL_RANK")
        with pytest.raises(ValueError, match="in use"), in_use(tmp_path, "folder"):
            pass
