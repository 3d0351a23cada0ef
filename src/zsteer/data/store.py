"""Image stores: uint8 images and float targets in one folder, read through a memory map; built whole or not at all."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap
from tqdm import tqdm

from zsteer.files import atomic_write, naming, rename, write_json

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
SPLIT_CHOICES = (*SPLITS, "all")  # what a key that names a split can be

PARTS = ("images", "targets", "splits")  # of a store, each a file of NumPy's

# Images that are made, and recorded as made, at a time.
_CHUNK = 256

# Images that a fingerprint looks at.
_SAMPLED = 64

# Where stores are noted that are opened, each list for one block of `opened_stores`.
_NOTED: "list[list[ImageStore]]" = []

# The images and targets of some indices: uint8 [m, 3, h, w] and float32 [m, K].
Fill = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class ImageStore:
    """A folder of `images.npy` uint8 [n, 3, h, w], `targets.npy` float32 [n, K], `splits.npy` uint8 [n], `store.json`.

    Images are read through a memory map. `splits` holds 0 (train), 1 (val) or 2 (test).
    """

    folder: Path
    images: np.ndarray
    targets: np.ndarray
    splits: np.ndarray
    names: tuple[str, ...]
    protocol: str

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "ImageStore":
        """Open a complete store and check its parts against each other.

        Raises:
            FileNotFoundError: not a store, or an incomplete one.
            ValueError: damaged.
        """
        folder = Path(folder)
        if not is_complete(folder):
            raise FileNotFoundError(f"{folder} is not a complete image store (it has no store.json)")
        try:
            about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
            count, names, protocol = about["count"], tuple(about["names"]), about["protocol"]
            if not isinstance(about["names"], list) or not all(isinstance(name, str) for name in (*names, protocol)):
                raise TypeError("store.json has names that are no words")
            # Mapped, so that nobody waits for the numbers of a header that promises too many.
            images, targets, splits = (open_memmap(folder / f"{name}.npy", mode="r") for name in PARTS)
        except Exception as error:  # whatever damaged files make of NumPy and JSON
            reason = " ".join(str(error).split())
            raise ValueError(f"{folder} is damaged ({reason}); delete it and prepare it again") from error
        height_and_width = images.shape[2:] if images.ndim == 4 else ("h", "w")
        expected = {
            "images.npy": (images, np.uint8, (count, 3, *height_and_width)),
            "targets.npy": (targets, np.float32, (count, len(names))),
            "splits.npy": (splits, np.uint8, (count,)),
        }
        for name, (array, dtype, shape) in expected.items():
            if array.dtype != dtype or array.shape != shape:
                found, wanted = f"{array.dtype} {array.shape}", f"{np.dtype(dtype)} {shape}"
                raise ValueError(f"{folder}/{name} is {found}, not {wanted}; delete the store and prepare it again")
        if splits.max(initial=0) >= len(SPLITS):
            raise ValueError(f"{folder}/splits.npy has other numbers than 0, 1 and 2; prepare the store again")
        store = cls(folder, images, np.array(targets), np.array(splits), names, protocol)
        for noted in _NOTED:
            noted.append(store)
        return store

    def __len__(self) -> int:
        return len(self.splits)

    def __reduce__(self):
        # Another process maps the files itself instead of receiving all images.
        return ImageStore.open, (self.folder,)

    def indices(self, split: int) -> np.ndarray:
        """The positions of a split's images, ascending."""
        return np.flatnonzero(self.splits == split)

    def counts(self) -> dict[str, int]:
        """The number of images of each split."""
        return {name: int((self.splits == split).sum()) for split, name in enumerate(SPLITS)}

    def fingerprint(self) -> str:
        """16 hex digits of all targets and splits, and of 64 images, evenly taken: all of them would take seconds."""
        digest = hashlib.sha256(f"{self.images.shape} {self.names} {self.protocol}".encode())
        sampled = self.images[np.linspace(0, len(self) - 1, min(_SAMPLED, len(self))).astype(int)]
        for part in (self.targets, self.splits, sampled):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]


@contextmanager
def opened_stores() -> Iterator[list[ImageStore]]:
    """The stores that are opened while the block runs."""
    noted: list[ImageStore] = []
    _NOTED.append(noted)
    try:
        yield noted
    finally:
        _NOTED[:] = [other for other in _NOTED if other is not noted]


def is_complete(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a finished store: `store.json` is what is written last."""
    return (Path(folder) / "store.json").is_file()


def build_store(
    folder: str | os.PathLike,
    fill: Fill,
    splits: np.ndarray,
    names: Sequence[str],
    protocol: str,
    made: Mapping[str, Any],
    key: str = "data.root",
    size: int = 64,
    workers: int = 1,
    title: str = "Preparing",
) -> ImageStore:
    """Open the store in `folder`, or make it: `fill` gives the images and targets of each chunk of indices.

    One process builds while others wait. A build that was killed continues where it stopped if `made` is the same.

    Args:
        made: what the content depends on, recorded in `store.json`; anything that JSON can hold.
        key: the config key that errors name.
        workers: threads; `fill` should spend its time outside Python.

    Raises:
        ValueError: the folder cannot be written, or holds something else.
    """
    folder = Path(folder).absolute()
    if is_complete(folder):
        return ImageStore.open(folder)
    check_writable(folder, key)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if is_complete(folder):
            return ImageStore.open(folder)
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{key}={folder} exists and is not an image store; move it away or set another {key}")
        about = {"count": len(splits), "names": list(names), "protocol": protocol, "made": dict(made)}
        partial_folder = folder.with_name(f".{folder.name}.partial")
        _fill_store(partial_folder, fill, splits.astype(np.uint8), about, size, workers, title)
        rename(partial_folder, folder)
        (folder / "progress").unlink(missing_ok=True)
    return ImageStore.open(folder)


def check_writable(folder: Path, key: str) -> None:
    """Make the parents of a folder that is to be written.

    Raises:
        ValueError: not possible; the message names the config `key`.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            pass
    except OSError as error:
        raise ValueError(f"{key}={folder} cannot be written ({error.strerror}); set {key} to another folder") from error


def _fill_store(
    folder: Path, fill: Fill, splits: np.ndarray, about: Mapping[str, Any], size: int, workers: int, title: str
) -> None:
    """Fill a folder chunk by chunk; `progress` names the content and then each finished chunk, one per line."""
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(json.dumps([about, _CHUNK]).encode() + splits.tobytes()).hexdigest()
    count, width = len(splits), len(about["names"])
    shapes = {"images": (np.uint8, (count, 3, size, size)), "targets": (np.float32, (count, width))}
    progress_file = folder / "progress"
    done = _finished_chunks(progress_file, digest) if _are_arrays(folder, shapes) else None
    if done is None:
        progress_file.unlink(missing_ok=True)  # before the files that it speaks of are overwritten
        for name, (dtype, shape) in shapes.items():
            _allocate(folder / f"{name}.npy", dtype, shape)
        done = set()
    # Written anew, because a kill may have cut the last line short and the next would continue it.
    with atomic_write(progress_file) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in [digest, *sorted(done)]), encoding="utf-8")
    images, targets = (open_memmap(folder / f"{name}.npy", mode="r+") for name in shapes)

    def work(chunk: int) -> int:
        indices = np.arange(chunk * _CHUNK, min((chunk + 1) * _CHUNK, count))
        images[indices], targets[indices] = fill(indices)
        return chunk

    chunks = [chunk for chunk in range(math.ceil(count / _CHUNK)) if chunk not in done]
    already = min(len(done) * _CHUNK, count)
    gigabytes = (images.nbytes + targets.nbytes) / 1e9
    title = f"{title}, {gigabytes:.2f} GB"
    bar = tqdm(total=count, initial=already, desc=title, unit="image", mininterval=0.5)
    with bar, open(progress_file, "a", encoding="utf-8") as progress, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, chunk) for chunk in chunks]
        try:
            for future in as_completed(futures):
                chunk = future.result()
                with naming(folder):
                    images.flush()  # the record must not outlive what it records
                    targets.flush()
                    progress.write(f"{chunk}\n")
                    progress.flush()
                bar.update(min(_CHUNK, count - chunk * _CHUNK))
        finally:
            pool.shutdown(cancel_futures=True)
    with atomic_write(folder / "splits.npy") as temporary:
        np.save(temporary, splits)
    write_json(folder / "store.json", about)


def _are_arrays(folder: Path, shapes: Mapping[str, tuple[type, tuple[int, ...]]]) -> bool:
    """Whether an interrupted build has left its arrays whole, which a power cut may have emptied."""
    try:
        arrays = {name: open_memmap(folder / f"{name}.npy", mode="r") for name in shapes}
    except (OSError, ValueError, EOFError):
        return False
    return all((arrays[name].dtype, arrays[name].shape) == shapes[name] for name in shapes)


def _allocate(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """Create an array file of zeros whose space on the disk is taken now."""
    array = open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    try:
        # A full disk is an error here; later, writing to the mapped pages of a file with holes would end the process.
        with open(path, "r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror}; {array.nbytes / 1e9:.1f} GB are needed for", str(path)
        ) from error


def _finished_chunks(progress: Path, digest: str) -> set[int] | None:
    """The chunks that an interrupted build of the same content has finished; None if there was none."""
    if not progress.is_file():
        return None
    text = progress.read_text(encoding="utf-8", errors="replace")
    first, *lines = text.split("\n")[:-1] or [""]  # what follows the last line end was cut short
    return {int(line) for line in lines if line.isdecimal()} if first == digest else None
