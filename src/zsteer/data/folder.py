"""Anybody's images in a folder, and a table of their attributes, converted once into an image store."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from zsteer.data.faces import FaceData, is_label
from zsteer.data.photos import FORMATS, fitted, open_photo
from zsteer.data.store import ImageStore, build_store, check_writable, is_complete
from zsteer.data.tables import Table, files_of_rows, read_table
from zsteer.files import printable, read_json
from zsteer.settings import existing_file, real_number, whole_number

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
MAX_SIZE = 1024
NUM_NAMED = 3  # files that a message names
KINDS = {"1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "palette", "RGBA": "alpha", "I": "16-bit"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a store is made of: images below a folder by their relative paths, a table, and what is made of them.

    Args:
        size: pixels a side.
        shares: of the training, validation and test images, where the table has no column `split`.
    """

    images: Path
    files: tuple[str, ...]
    table: Path | None
    size: int
    shares: tuple[float, ...]

    @classmethod
    def find(cls, images: Path, table: Path | None, size: int, shares: Sequence[float]) -> "Sources":
        """List the images in a folder and its subfolders.

        Raises:
            FileNotFoundError, ValueError: no such folder or table, or no images.
        """
        if not images.is_dir():
            raise FileNotFoundError(f"data.images={images}: no such folder")
        if table is not None:
            existing_file(table, "data.table")
        files = [
            Path(folder, name).relative_to(images).as_posix()
            for folder, _, names in os.walk(images)
            for name in names
            if name.lower().endswith(SUFFIXES) and not _hidden(Path(folder, name).relative_to(images))
        ]
        if not files:
            raise ValueError(f"data.images={images} has no images in it; they must end in {', '.join(SUFFIXES)}")
        return cls(images, tuple(sorted(files)), table, size, tuple(shares))

    @cached_property
    def made(self) -> dict[str, Any]:
        """What changes when an image, the table or a setting does."""
        digest = hashlib.sha256()
        for file in self.files:
            try:
                stat = (self.images / file).stat()
                state = f"{stat.st_size} {stat.st_mtime_ns}"
            except OSError:  # a link that leads nowhere, which is no image that can be read
                state = ""
            digest.update(os.fsencode(file) + f"\0{state}\0".encode())
        table = None if self.table is None else hashlib.sha256(self.table.read_bytes()).hexdigest()
        return {"files": digest.hexdigest(), "table": table, "size": self.size, "shares": list(self.shares)}

    @property
    def name(self) -> str:
        """A store's name that is as good as its content."""
        return f"folder-{hashlib.sha256(json.dumps(self.made).encode()).hexdigest()[:8]}"


def folder_store(sources: Sources, folder: Path, key: str, workers: int) -> ImageStore:
    """Open the store, or make it of the images that have a row in the table and can be read; say once which have not.

    Images become RGB as Pillow converts them, upright, are cropped to the largest centred square and resized with
    antialiasing.

    Args:
        key: the config key that errors name.

    Raises:
        ValueError, FileNotFoundError: the table cannot be understood, no image is left, the folder cannot be written.
    """
    if is_complete(folder):
        return ImageStore.open(folder)
    check_writable(folder, key)
    # Beside the store's own lock, so that one process looks at the images and speaks of them.
    with FileLock(folder.with_name(f".{folder.name}.images.lock")):
        if is_complete(folder):
            return ImageStore.open(folder)
        files, targets, names, splits = _readable(sources, workers)

        def fill(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            photos = [open_photo(sources.images / files[index]) for index in indices.tolist()]
            return np.stack([fitted(photo, sources.size, sources.size) for photo in photos]), targets[indices]

        return build_store(
            folder,
            fill,
            splits,
            names,
            protocol=f"square-antialias{sources.size}-uint8",
            made={"images": str(sources.images.absolute()), **sources.made},
            key=key,
            size=sources.size,
            workers=workers,
            title="Converting images",
        )


def _readable(sources: Sources, workers: int) -> tuple[list[str], np.ndarray, Sequence[str], np.ndarray]:
    """The files to take, in order, their targets, the targets' names and the splits; what is left out is said."""
    files, without = sources.files, np.empty((len(sources.files), 0), np.float32)
    if sources.table is None:
        table, meant = Table(sources.images, files, (), without), list(files)
    else:
        table = read_table(sources.table)
        meant = files_of_rows(table, sources.images, files)
    row_of = {file: row for row, file in enumerate(meant) if file is not None}
    listed = [file for file in files if file in row_of]
    with ThreadPoolExecutor(workers) as pool:
        looks = pool.map(lambda file: _look(sources.images, file, sources.size), listed)
        look_at = dict(zip(listed, tqdm(looks, "Looking at images", len(listed)), strict=True))
    taken = [file for file, look in look_at.items() if not isinstance(look, str)]
    left_out = {
        "files without a row": [file for file in files if file not in row_of],
        "rows without a file": [written for written, file in zip(table.files, meant, strict=True) if file is None],
        "images that cannot be read": [look for look in look_at.values() if isinstance(look, str)],
    }
    notes = [f"{len(names)} {what} ({_few(names)}) left out" for what, names in left_out.items() if names]
    if not taken:
        raise ValueError(f"data.images={sources.images}: no image remains, with {', '.join(notes)}")
    converted = Counter(note for file in taken for note in look_at[file])
    notes += [f"{number} {note}" for note, number in converted.items()]
    if notes:
        log.warning("data.images=%s: %d images are taken; %s", sources.images, len(taken), ", ".join(notes))
    rows = [row_of[file] for file in taken]
    splits = shared_out(taken, sources.shares) if table.splits is None else table.splits[rows]
    return taken, table.targets[rows], table.names, splits


def _hidden(path: Path) -> bool:
    """Whether a file, or a folder that it is in, is hidden or a system's own."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _few(listed: Sequence[str]) -> str:
    named = list(map(printable, listed[:NUM_NAMED]))
    return ", ".join(named + ["…"] * (len(listed) > NUM_NAMED))


def shared_out(files: Sequence[str], shares: Sequence[float]) -> np.ndarray:
    """The splits uint8 `[n]`: each gets its share of the files in the order of a hash of their names."""
    order = np.argsort([hashlib.sha256(os.fsencode(file)).hexdigest() for file in files])
    ends = np.round(np.cumsum(shares)[:-1] * len(files))  # of all but the last split
    splits = np.empty(len(files), np.uint8)
    splits[order] = np.searchsorted(ends, np.arange(len(files)), side="right")
    return splits


def _look(folder: Path, file: str, size: int) -> list[str] | str:
    """What has to be noted of an image's conversion, or why it cannot be read."""
    try:
        photo = open_photo(folder / file)
    except ValueError as error:
        return f"{file}: {error}"
    with Image.open(folder / file, formats=FORMATS) as image:
        kind = KINDS.get(image.mode.partition(";")[0], image.mode)
    return [f"{kind} as RGB"] * (kind != "RGB") + [f"enlarged to {size} pixels"] * (min(photo.size) < size)


class ImageFolder(FaceData):
    """Images of a folder with the attributes of a table, converted once into `<root>/folder-<hash>`.

    By default the targets are the labels, or the numbers where there are no labels.

    Args:
        images: the folder, which is searched with its subfolders.
        table: a CSV of a row for each image (see `read_table`); null gives images without targets.
        size: pixels a side.
        shares: of the training, validation and test images, where the table has no column `split`.
        store: the folder of the converted images, from which they are read once they are there; null is
            `<root>/folder-<hash>`.
        workers: threads that convert; null is one for each core.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        *,
        images: str | os.PathLike,
        table: str | os.PathLike | None = None,
        size: int = 64,
        shares: Sequence[int | float] = (0.8, 0.1, 0.1),
        store: str | os.PathLike | None = None,
        workers: int | None = None,
        **training: Any,
    ):
        super().__init__(**training)
        whole_number(size, "data.size", 8, MAX_SIZE)
        self.workers = whole_number((os.cpu_count() or 1) if workers is None else workers, "data.workers", 1)
        if isinstance(shares, str) or len(shares) != 3:
            raise ValueError(f"data.shares={shares} must be three numbers, as in [0.8,0.1,0.1]")
        for share in shares:
            real_number(share, "data.shares", minimum=0.0)
        if abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"data.shares={list(shares)} must be 1 together")
        self.images, self.table = Path(images), None if table is None else Path(table)
        self.size, self.shares = size, tuple(map(float, shares))
        self.folder = None if store is None else Path(store)

    @property
    def place(self) -> Path:
        return self.folder or self.root / self._sources().name

    def check_sources(self) -> None:
        self._sources()

    def _sources(self) -> Sources:
        return Sources.find(self.images, self.table, self.size, self.shares)

    def open_store(self) -> ImageStore:
        """
        Raises:
            ValueError: `data.store` was made of other files, or to another size.
        """
        if self.folder is not None and is_complete(self.folder) and not self.images.exists():
            now: Mapping[str, Any] = {"size": self.size}  # the images may be deleted once they are converted
        else:
            sources = self._sources()
            if self.folder is None:
                return folder_store(sources, self.root / sources.name, "data.root", self.workers)
            if not is_complete(self.folder):
                return folder_store(sources, self.folder, "data.store", self.workers)
            now = sources.made
        store = ImageStore.open(self.folder)
        about = read_json(self.folder / "store.json")
        made = about.get("made") if isinstance(about.get("made"), Mapping) else {}
        if other := [key for key, value in now.items() if made.get(key) != value]:
            raise ValueError(
                f"data.store={self.folder} was made with other {' and '.join(other)}; delete it, or set data.store"
            )
        return store

    @cached_property
    def labels(self) -> list[int]:
        """The store's columns that are labels."""
        return [column for column, values in enumerate(self.store.targets.T) if is_label(values)]

    @property
    def columns(self) -> list[int]:
        if self.attributes is not None or not self.labels:
            return super().columns
        return self.labels

    def require_targets(self) -> None:
        """
        Raises:
            ValueError: there are none, or a label that all training images of this fold share.
        """
        if not self.store.names:
            raise ValueError("data.table=null gives the images no attributes to learn; name a table of them")
        targets = self.store.targets[self.train_indices()]
        for name, column in zip(self.names, self.columns, strict=True):
            states = np.unique(targets[~np.isnan(targets[:, column]), column])
            if len(states) < 2:
                state = f"no known {name}" if not len(states) else f"{name}={states[0]:g}"
                others = [other for other in self.names if other != name]
                raise ValueError(
                    f"data.table={self.table}: all training images have {state}, so that there is nothing to learn; "
                    f"leave it out, as by data.attributes=[{','.join(others)}]"
                )
        if self.attributes is None and (numbers := [name for name in self.store.names if name not in self.names]):
            log.warning(
                "left out are numbers: %s; data.attributes=[%s] trains a regressor of them",
                ", ".join(numbers),
                ",".join(numbers),
            )
