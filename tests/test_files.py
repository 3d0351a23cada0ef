"""Files are whole or absent."""

import os

import pytest

from zsteer import files


@pytest.mark.parametrize("content", [{"a": float("nan")}, {"a": object()}])
def test_json_that_cannot_be_written_leaves_no_file(content, tmp_path):
    with pytest.raises((ValueError, TypeError)):
        files.write_json(tmp_path / "a.json", content)
    assert list(tmp_path.iterdir()) == []


def test_file_is_not_there_before_it_is_whole(tmp_path):
    with files.atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("all")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "all"
    assert os.stat(tmp_path / "a.txt").st_mode & 0o444 == 0o444
