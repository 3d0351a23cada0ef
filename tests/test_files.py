"""Files are whole or absent."""

import json
import os

import pytest

from zsteer import files


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
