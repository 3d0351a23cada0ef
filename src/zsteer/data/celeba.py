"""CelebA from the files that people have (folder or zip, txt or CSV), converted once into an image store.

Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015. Of its files only the aligned images, the attributes
and the partition are read.
"""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zsteer.data.attributes import CELEBA, canonical
from zsteer.data.photos import fitted, open_photo
from zsteer.data.store import ImageStore, build_store, check_writable, is_complete
from zsteer.files import atomic_write
from zsteer.settings import whole_number

SIZE = 64
ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
# Kaggle's archive has the folder twice.
FOLDERS = ("img_align_celeba/img_align_celeba", "img_align_celeba")
ZIP = "img_align_celeba.zip"


@dataclass(frozen=True)
class Sources:
    """The three parts of CelebA that were found: two annotation files, and a folder or zip of images."""

    attributes: Path
    partition: Path
    images: Path

    def stamp(self) -> str:
        """What changes when one of the files is replaced: their paths, sizes and times."""
        parts = [(path, path.stat()) for path in (self.attributes, self.partition)]
        return json.dumps([[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in parts])


@dataclass(frozen=True)
class Annotations:
    """For each image its file name, its 40 labels as 0 or 1 (uint8 [n, 40]), and its split (uint8 [n])."""

    files: np.ndarray
    labels: np.ndarray
    splits: np.ndarray


def by_hand(root: Path) -> str:
    """How to get CelebA without the download."""
    return (
        f"to get CelebA by hand, download img_align_celeba.zip (the aligned images), list_attr_celeba.txt and "
        f"list_eval_partition.txt of its 2016 release from CelebA's project page or a mirror into {root / 'celeba'}; "
        f"the zip need not be unpacked"
    )


def find_sources(root: str | os.PathLike) -> Sources:
    """Find CelebA's files in `<root>/celeba`, or in `root` where there is no such folder.

    Raises:
        FileNotFoundError: the message lists what was found and what is missing, and how to get it.
    """
    root = Path(root)
    base = root / "celeba" if (root / "celeba").is_dir() else root
    attributes = _first(base / name for name in ATTRIBUTES if (base / name).is_file())
    partition = _first(base / name for name in PARTITION if (base / name).is_file())
    folder = _first(base / name for name in FOLDERS if _has_images(base / name))
    images = folder or _first(path for path in [base / ZIP] if path.is_file())
    parts = {
        "list_attr_celeba.txt (or .csv)": attributes,
        "list_eval_partition.txt (or .csv)": partition,
        "img_align_celeba.zip (or the folder img_align_celeba with the images)": images,
    }
    missing = [name for name, path in parts.items() if path is None]
    if attributes is None or partition is None or images is None:
        found = [str(path.relative_to(base)) for path in parts.values() if path is not None]
        found += ["img_align_celeba without images (*.jpg)"] if images is None and (base / FOLDERS[1]).is_dir() else []
        raise FileNotFoundError(
            f"data.root={root}: CelebA is incomplete in {base}: found {', '.join(found) or 'none of its files'}; "
            f"missing {', '.join(missing)}; {by_hand(root)}"
        )
    return Sources(attributes, partition, images)


def _first(paths: Any) -> Path | None:
    return next(iter(paths), None)


def _has_images(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(".jpg") for entry in entries)


def read_annotations(sources: Sources, cache: str | os.PathLike | None = None) -> Annotations:
    """Parse the attributes and the partition, or take them from `cache` (.npz) if the files are those it was made from.

    Raises:
        ValueError: a file that is not what its name says.
    """
    stamp = sources.stamp()
    if cache is not None and Path(cache).is_file():
        with np.load(cache) as content:
            if str(content["stamp"]) == stamp:
                return Annotations(content["files"], content["labels"], content["splits"])
    files, labels = _read_attributes(sources.attributes)
    annotations = Annotations(files, labels, _read_partition(sources.partition, files))
    if cache is not None:
        with atomic_write(cache) as temporary:
            np.savez(temporary, stamp=stamp, **vars(annotations))
    return annotations


def _read_attributes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """File names [n] and labels uint8 [n, 40] in the order of `CELEBA`, from the txt or the CSV form."""
    lines = _lines(path)
    if path.suffix == ".csv":
        header, rows, count = lines[0].split()[1:], lines[1:], None
    else:
        if len(lines) < 2 or not lines[0].strip().isdigit():
            raise ValueError(f"{path} is not CelebA's: its first line should be the number of images")
        header, rows, count = lines[1].split(), lines[2:], int(lines[0])
    names = [canonical(name.decode(errors="replace")) for name in header]
    if sorted(names) != sorted(CELEBA):
        raise ValueError(f"{path} names {len(names)} attributes that are not CelebA's forty; get the file again")
    if count not in (None, len(rows)):
        raise ValueError(f"{path} announces {count} images and has {len(rows)}; get the file again")
    # One call parses all numbers; eight million Python strings would take many times as long.
    parts = [row.split(None, 1) for row in rows]
    labels = _numbers(b" ".join(part[-1] for part in parts))
    if labels is None or labels.size != len(rows) * len(names) or not np.isin(labels, (-1, 1)).all():
        raise ValueError(f"{path} is not CelebA's: each row should be a file name and forty labels, -1 or 1")
    order = [names.index(name) for name in CELEBA]
    return np.array([part[0] for part in parts]).astype(str), (labels.reshape(len(rows), -1)[:, order] > 0).astype("u1")


def _read_partition(path: Path, files: np.ndarray) -> np.ndarray:
    """The splits uint8 [n] of the given file names."""
    rows = [line.split() for line in _lines(path)]
    rows = rows[1:] if path.suffix == ".csv" else rows
    split_of = {row[0].decode(errors="replace"): row[1] for row in rows if len(row) == 2}
    if len(split_of) != len(rows) or not set(split_of.values()) <= {b"0", b"1", b"2"}:
        raise ValueError(f"{path} is not CelebA's: each row should be a file name and 0, 1 or 2")
    missing = [name for name in files.tolist() if name not in split_of]
    if missing or len(split_of) != len(files):
        raise ValueError(
            f"{path} has {len(split_of)} images and the attributes {len(files)}"
            + (f"; it lacks {missing[0]}" if missing else "")
            + "; get both files of the same release"
        )
    return np.array([split_of[name] for name in files.tolist()]).astype(np.uint8)


def _lines(path: Path) -> list[bytes]:
    """A file's lines that are not empty, with commas as blanks."""
    content = path.read_bytes()
    if content[:256].lstrip().startswith(b"<"):
        raise ValueError(f"{path} is a web page, not the file: its download was refused; get it again")
    lines = [line for line in content.replace(b",", b" ").splitlines() if line.strip()]
    if len(lines) < 2:
        raise ValueError(f"{path} is empty; get it again")
    return lines


def _numbers(text: bytes) -> np.ndarray | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy only warns of what it cannot read
        try:
            return np.fromstring(text, dtype=np.int8, sep=" ")
        except (DeprecationWarning, ValueError):
            return None


Read = Callable[[str], bytes]


def open_images(images: Path) -> tuple[set[str], Read]:
    """The names of the JPEGs in a folder or zip, and a function that reads one; threads may share it.

    Raises:
        ValueError: the zip is none.
    """
    if images.is_dir():
        names = {name for name in os.listdir(images) if name.lower().endswith(".jpg")}
        return names, lambda name: (images / name).read_bytes()
    try:
        archive = zipfile.ZipFile(images)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{images} ({images.stat().st_size:,} bytes) {_what_instead(images)}; get it again") from error
    entries = {
        entry.filename.rsplit("/", 1)[-1]: entry
        for entry in archive.infolist()
        if entry.filename.lower().endswith(".jpg") and not entry.filename.startswith("__MACOSX/")
    }
    return set(entries), lambda name: archive.read(entries[name])


def _what_instead(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(256).lstrip()
    if start.startswith(b"<"):
        return "is a web page, not a zip: the download was refused"
    return "is not a whole zip" if start.startswith(b"PK") else "is not a zip"


def _check_complete(sources: Sources, names: set[str], files: np.ndarray) -> None:
    missing = sorted(set(files.tolist()) - names)
    if missing or len(names) != len(files):
        raise ValueError(
            f"{sources.images} has {len(names)} images and {sources.attributes.name} {len(files)} rows"
            + (f"; {len(missing)} are missing, the first {missing[0]}" if missing else "")
            + "; complete the images, or take annotations of the same release"
        )


def _decode(read: Read, name: str, images: Path, expected: tuple[int, int] | None = None) -> Image.Image:
    try:
        image = open_photo(io.BytesIO(read(name)))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{images / name} cannot be read ({error}); get it again") from error
    if expected not in (None, image.size):
        raise ValueError(f"{images / name} is {image.size}, the others {expected} pixels; is it an aligned image?")
    return image


def prepare(root: str | os.PathLike, store: str | os.PathLike, workers: int | None = None) -> ImageStore:
    """Convert CelebA in `root` into the store, or continue where a conversion was interrupted.

    The protocol of images of 178x218 is called `crop178-antialias64-uint8`.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: files are damaged or do not fit together, or the store cannot be written.
    """
    workers = whole_number(workers or os.cpu_count() or 1, "data.workers", 1)
    store = Path(store).absolute()
    sources = find_sources(root)
    check_writable(store, "data.store")
    annotations = read_annotations(sources, store.with_name(f".{store.name}-annotations.npz"))
    names, read = open_images(sources.images)
    _check_complete(sources, names, annotations.files)
    expected = _decode(read, annotations.files[0], sources.images).size

    def fill(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        files = annotations.files[indices].tolist()
        images = [fitted(_decode(read, name, sources.images, expected), SIZE, SIZE) for name in files]
        return np.stack(images), annotations.labels[indices].astype(np.float32)

    return build_store(
        store,
        fill,
        annotations.splits,
        CELEBA,
        protocol=f"crop{min(expected)}-antialias{SIZE}-uint8",
        made={"images": str(sources.images), "annotations": json.loads(sources.stamp())},
        key="data.store",
        size=SIZE,
        workers=workers,
        title="Converting CelebA",
    )


def download(root: str | os.PathLike) -> None:
    """Let torchvision fetch CelebA into `<root>/celeba`.

    Raises:
        ValueError: it could not, which happens often; the message says how to get CelebA by hand.
    """
    from torchvision.datasets import CelebA as TorchvisionCelebA

    try:
        TorchvisionCelebA(str(root), split="all", download=True)
    except Exception as error:  # quota, web pages instead of files, a missing package, a full disk, ...
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"data.download=true: torchvision failed ({reason}); {by_hand(Path(root))}") from error


def check_sources(root: str | os.PathLike, store: Path) -> None:
    """Compare what a finished store was made of with the files that are there now, if they are.

    Raises:
        ValueError: they are others, by the sizes of the annotations, which copies and other paths leave as they are.
    """
    try:
        sources = find_sources(root)
    except FileNotFoundError:  # they may be deleted once they are converted
        return
    made = json.loads((store / "store.json").read_text())["made"].get("annotations", [])
    if made and [size for _, size, _ in made] != [size for _, size, _ in json.loads(sources.stamp())]:
        raise ValueError(
            f"data.store={store} was made of other files than those of data.root={root}; delete it or set data.store"
        )


def celeba_store(
    root: str | os.PathLike,
    store: str | os.PathLike | None = None,
    download_files: bool = False,
    workers: int | None = None,
) -> ImageStore:
    """Open CelebA's store, `<root>/celeba64` unless given; the first time, prepare it.

    Raises:
        FileNotFoundError, ValueError: as `prepare` and `download`.
    """
    store = Path(root) / "celeba64" if store is None else Path(store)
    if is_complete(store):
        check_sources(root, store)
        return ImageStore.open(store)
    if download_files:
        try:
            find_sources(root)
        except FileNotFoundError:
            download(root)
    return prepare(root, store, workers)
