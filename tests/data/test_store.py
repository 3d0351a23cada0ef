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


@pytest.mark.parametrize("damage", ["truncated", "short", "json", "dtype"])
def test_damaged_store(tmp_path, damage):
    folder = small_store(tmp_path / "store").folder
    if damage == "truncated":
        os.truncate(folder / "images.npy", 1000)
    elif damage == "short":
        np.save(folder / "splits.npy", np.zeros(29, np.uint8))
    elif damage == "json":
        (folder / "store.json").write_text("{")
    else:
        np.save(folder / "targets.npy", np.zeros((30, 2)))
    with pytest.raises(ValueError, match=f"{folder}.*prepare it again"):
        ImageStore.open(folder)


def test_full_disk_is_an_error_with_the_size(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"No space left on device; 0.0 GB are needed for.*images.npy"):
        small_store(tmp_path / "store")


def test_store_json_says_how_the_store_was_made(tmp_path):
    about = json.loads((small_store(tmp_path / "store").folder / "store.json").read_text())
    assert about == {"count": 30, "names": ["up", "down"], "protocol": "counting8", "made": {"count": 30}}
