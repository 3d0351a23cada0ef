import io
import json
import os
import pickle
import threading

import numpy as np
import pytest

from zsteer.data.store import ImageStore, build_store


def fill(indices):
    images = np.broadcast_to(indices[:, None, None, None] % 256, (len(indices), 3, 8, 8))
    return images.astype(np.uint8), np.stack([indices, -indices], axis=1).astype(np.float32)


def small_store(folder, count=30, fill=fill, **options):
    splits = np.arange(count) % 3
    return build_store(folder, fill, splits, ["up", "down"], "counting8", {"count": count}, size=8, **options)


def test_store_holds_what_was_filled(tmp_path):
    store = small_store(tmp_path / "store", count=600, workers=2)
    images, targets = fill(np.arange(600))
    assert np.array_equal(store.images, images)
    assert np.array_equal(store.targets, targets)
    assert isinstance(store.images, np.memmap)
    assert store.counts() == {"train": 200, "val": 200, "test": 200}
    assert store.names == ("up", "down")
    assert store.protocol == "counting8"
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "images.npy",
        "splits.npy",
        "store.json",
        "targets.npy",
    ]


def test_store_is_reused(tmp_path):
    small_store(tmp_path / "store")
    small_store(tmp_path / "store", fill=lambda indices: pytest.fail("filled again"))


def test_store_is_pickled_as_its_folder(tmp_path):
    pickled = pickle.dumps(small_store(tmp_path / "store"))
    assert len(pickled) < 1000
    assert len(pickle.loads(pickled)) == 30


def test_interrupted_build_continues(tmp_path):
    progress = tmp_path / ".store.partial" / "progress"

    def failing(fatal, started):
        def fill_until(indices):
            started.append(int(indices[0]) // 256)
            if started[-1] == fatal:
                raise KeyError("power cut")
            return fill(indices)

        return fill_until

    for fatal in (2, 3):
        with pytest.raises(KeyError, match="power cut"):
            small_store(tmp_path / "store", count=1500, fill=failing(fatal, []))
        assert not (tmp_path / "store").exists()
        whole_lines = progress.read_text()
        progress.write_text(f"{whole_lines}5")  # a kill can cut a line short
    recorded = {int(line) for line in whole_lines.split()[1:]}
    assert recorded >= {0, 1, 2}
    started = []
    store = small_store(tmp_path / "store", count=1500, fill=failing(None, started))
    assert set(started) == {0, 1, 2, 3, 4, 5} - recorded
    assert np.array_equal(store.images, fill(np.arange(1500))[0])


def test_interrupted_build_of_something_else_starts_again(tmp_path):
    def failing(indices):
        raise KeyError("power cut")

    with pytest.raises(KeyError):
        small_store(tmp_path / "store", count=300, fill=failing)
    assert np.array_equal(small_store(tmp_path / "store", count=310).images, fill(np.arange(310))[0])


def test_one_builds_while_others_wait(tmp_path):
    filled = []

    def slow(indices):
        filled.append(threading.get_ident())
        threading.Event().wait(0.2)
        return fill(indices)

    threads = [threading.Thread(target=small_store, args=(tmp_path / "store", 30, slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(filled) == 1
    assert len(ImageStore.open(tmp_path / "store")) == 30


def test_store_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a complete image store"):
        ImageStore.open(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="data.root=.*other exists and is not an image store"):
        small_store(tmp_path / "other")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"data.root=.* cannot be written \(.*\); set data.root"):
        small_store(tmp_path / "file" / "store")


def header(shape, descr="|u1", fortran=False):
    """The beginning of one of NumPy's files that promises an array."""
    about = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"
    text = about.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def zipped():
    file = io.BytesIO()
    np.savez(file, splits=np.zeros(30, np.uint8))
    return file.getvalue()


def about(**changed):
    whole = {"count": 30, "names": ["up", "down"], "protocol": "counting8", "made": {}}
    return lambda folder: (folder / "store.json").write_text(json.dumps({**whole, **changed}))


DAMAGE = {
    "truncated": lambda folder: os.truncate(folder / "images.npy", 1000),
    "short": lambda folder: np.save(folder / "splits.npy", np.zeros(29, np.uint8)),
    "json": lambda folder: (folder / "store.json").write_text("{"),
    "json of a list": lambda folder: (folder / "store.json").write_text("[1]"),
    "json without an end": lambda folder: (folder / "store.json").write_text("[" * 100_000),
    "json that is no text": lambda folder: (folder / "store.json").write_bytes(b"\xff\xfe"),
    "names that are numbers": about(names=[1, 2]),
    "a name": about(names="up"),
    "a protocol that is none": about(protocol=None),
    "a count that is none": about(count="30"),
    "dtype": lambda folder: np.save(folder / "targets.npy", np.zeros((30, 2))),
    "byte order": lambda folder: np.save(folder / "targets.npy", np.zeros((30, 2), ">f4")),
    "fields": lambda folder: np.save(folder / "splits.npy", np.zeros(30, [("a", "u1")])),
    "pickled": lambda folder: np.save(folder / "targets.npy", np.array([[{}, {}]] * 30)),
    "huge": lambda folder: (folder / "targets.npy").write_bytes(header((2**40, 2), "<f4")),
    "huge beyond all numbers": lambda folder: (folder / "targets.npy").write_bytes(header((2**80, 2), "<f4")),
    "negative": lambda folder: (folder / "splits.npy").write_bytes(header((-30,)) + bytes(30)),
    "header that is none": lambda folder: (folder / "splits.npy").write_bytes(header("__import__('os')")),
    "empty": lambda folder: (folder / "targets.npy").write_bytes(b""),
    "zip": lambda folder: (folder / "splits.npy").write_bytes(zipped()),
    "other splits": lambda folder: np.save(folder / "splits.npy", np.full(30, 3, np.uint8)),
    "missing": lambda folder: (folder / "splits.npy").unlink(),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_store(tmp_path, name):
    folder = small_store(tmp_path / "store").folder
    DAMAGE[name](folder)
    with pytest.raises(ValueError, match=f"^{folder}.*prepare (it|the store) again") as caught:
        ImageStore.open(folder)
    assert "\n" not in str(caught.value)


def test_arrays_in_fortrans_order_are_the_same_images(tmp_path):
    store = small_store(tmp_path / "store")
    expected = np.array(store.images)
    np.save(store.folder / "images.npy", np.asfortranarray(expected))
    assert np.array_equal(ImageStore.open(store.folder).images[np.array([3, 1])], expected[[3, 1]])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "images.npy").write_bytes(b""),
        lambda folder: (folder / "targets.npy").unlink(),
        lambda folder: np.save(folder / "targets.npy", np.zeros(3)),
        lambda folder: (folder / "progress").write_bytes(b"\xff\x00\nx\n"),
        lambda folder: (folder / "progress").write_text((folder / "progress").read_text() + "x\n-1\n"),
    ],
    ids=["emptied", "missing", "other shape", "progress that is no text", "progress with other words"],
)
def test_an_interrupted_build_whose_files_a_power_cut_took_is_made_whole(tmp_path, damage):
    def failing(indices):
        if indices[0]:
            raise KeyError("power cut")
        return fill(indices)

    with pytest.raises(KeyError, match="power cut"):
        small_store(tmp_path / "store", count=300, fill=failing)
    damage(tmp_path / ".store.partial")
    assert np.array_equal(small_store(tmp_path / "store", count=300).images, fill(np.arange(300))[0])


def test_full_disk_is_an_error_with_the_size(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"No space left on device; 0.0 GB are needed for.*images.npy"):
        small_store(tmp_path / "store")


def test_store_json_says_how_the_store_was_made(tmp_path):
    about = json.loads((small_store(tmp_path / "store").folder / "store.json").read_text())
    assert about == {"count": 30, "names": ["up", "down"], "protocol": "counting8", "made": {"count": 30}}
