"""The npm package whose files a page takes."""

import io
import tarfile

import pytest
from runtimes import packed, write_package

from zsteer.pages.runtime import ABOUT, WASM, read_runtime


def test_the_folder_and_what_npm_packs_are_alike(tmp_path):
    folder = write_package(tmp_path / "folder")
    runtime = read_runtime(folder)
    assert runtime == read_runtime(packed(folder))
    assert (runtime.version, runtime.script, runtime.wasm) == ("1.30.0", b"export default 1", b"wasm")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"name": "onnxruntime"}, "is another package; it must be onnxruntime-web 1.25 or newer"),
        ({"version": "1.24.1"}, "is version 1.24.1; it must be"),
        ({"version": "latest"}, "is another package"),
        ({"without": WASM}, f"has no {WASM}"),
        ({"without": ABOUT}, f"has no {ABOUT}"),
    ],
)
def test_what_is_not_the_package_is_refused_with_the_remedy(tmp_path, made, said):
    with pytest.raises(ValueError) as error:
        read_runtime(write_package(tmp_path, **made))
    assert said in str(error.value) and "`npm pack onnxruntime-web`" in str(error.value)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, damage):
    path = tmp_path / "packed.tgz"
    with tarfile.open(path, "w:gz") as archive:
        large = tarfile.TarInfo(f"package/{WASM}")
        large.size = 100_000
        archive.addfile(large, io.BytesIO(bytes(i * i % 251 for i in range(large.size))))
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 255
    path.write_bytes({"text": b"no archive", "cut": bytes(data[: len(data) // 2]), "flipped": bytes(data)}[damage])
    with pytest.raises(ValueError, match=r"is no npm package that can be read|has no"):
        read_runtime(path)


def test_one_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="runtime=.*nowhere: no such file or folder; fetch it by `npm pack"):
        read_runtime(tmp_path / "nowhere")


def test_a_version_after_those_that_were_tried_is_known_as_such(tmp_path):
    assert read_runtime(write_package(tmp_path / "old", version="1.30.1")).is_tried
    assert not read_runtime(write_package(tmp_path / "new", version="1.31.0")).is_tried
