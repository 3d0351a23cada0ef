"""CelebA from the files that people have (folder or zip, txt or CSV), converted once into an image store.

Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015. Of its files only the aligned images, the attributes
and the partition are read.
"""

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zsteer.data.attributes import CELEBA, canonical
from zsteer.data.images import decode_image, has_images, open_images
from zsteer.data.photos import fitted
from zsteer.data.store import ImageStore, build_store, check_writable, is_complete
from zsteer.files import atomic_write, read_json
from zsteer.settings import whole_number

SIZE = 64
# Beside one another, or each where CelebA's own folders have it. Kaggle's archive has that of the images twice.
ATTRIBUTES = [f"{place}list_attr_celeba.{kind}" for place in ("", "anno/") for kind in ("txt", "csv")]
PARTITION = [f"{place}list_eval_partition.{kind}" for place in ("", "eval/", "anno/") for kind in ("txt", "csv")]
FOLDERS = [f"{place}img_align_celeba{again}" for place in ("", "img/") for again in ("/img_align_celeba", "")]
ZIPS = [f"{place}img_align_celeba.zip" for place in ("", "img/")]


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
    """Find CelebA's files in `<root>/celeba`, or in `root` where there is no such folder; in upper or lower case.

    They lie there as they are distributed (in `Anno`, `Eval` and `Img`), or as torchvision or Kaggle have them.

    Raises:
        FileNotFoundError: the message lists what was found and what is missing, and how to get it.
    """
    root = base = Path(root)
    while (inner := _below(base, "celeba")) is not None and inner.is_dir():
        base = inner
    attributes = _first(path for path in _all_below(base, ATTRIBUTES) if path.is_file())
    partition = _first(path for path in _all_below(base, PARTITION) if path.is_file())
    folder = _first(path for path in _all_below(base, FOLDERS) if has_images(path))
    images = folder or _first(path for path in _all_below(base, ZIPS) if path.is_file())
    parts = {
        "list_attr_celeba.txt (or .csv)": attributes,
        "list_eval_partition.txt (or .csv)": partition,
        "img_align_celeba.zip (or the folder img_align_celeba with the images)": images,
    }
    missing = [name for name, path in parts.items() if path is None]
    if attributes is None or partition is None or images is None:
        found = [str(path.relative_to(base)) for path in parts.values() if path is not None]
        empty = _first(path for path in _all_below(base, FOLDERS) if path.is_dir())
        found += [f"{empty.name} without images (*.jpg)"] if images is None and empty is not None else []
        raise FileNotFoundError(
            f"data.root={root}: CelebA is incomplete in {base}: found {', '.join(found) or 'none of its files'}; "
            f"missing {', '.join(missing)}; {by_hand(root)}"
        )
    return Sources(attributes, partition, images)


def _first(paths: Iterable[Path]) -> Path | None:
    return next(iter(paths), None)


def _all_below(base: Path, relatives: Iterable[str]) -> Iterable[Path]:
    return (path for relative in relatives if (path := _below(base, relative)) is not None)


def _below(base: Path, relative: str) -> Path | None:
    """What lies at a path of lower case below a folder, in whatever case; null if nothing does."""
    for part in relative.split("/"):
        if not base.is_dir():
            return None
        names = [name for name in os.listdir(base) if name.lower() == part]
        if not names:
            return None
        base = base / (part if part in names else min(names))
    return base


def read_annotations(sources: Sources, cache: str | os.PathLike | None = None) -> Annotations:
    """Parse the attributes and the partition, or take them from `cache` (.npz) if the files are those it was made from.

    Raises:
        ValueError: a file that is not what its name says.
    """
    stamp = sources.stamp()
    if cache is not None and (cached := _read_cache(Path(cache), stamp)) is not None:
        return cached
    files, labels = _read_attributes(sources.attributes)
    annotations = Annotations(files, labels, _read_partition(sources.partition, files))
    if cache is not None:
        with atomic_write(cache) as temporary:
            np.savez(temporary, stamp=stamp, **vars(annotations))
    return annotations


def _read_cache(path: Path, stamp: str) -> Annotations | None:
    """What the cache holds; None if there is none, or of other files, or if it is damaged."""
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file, np.load(file) as content:
            annotations = Annotations(content["files"], content["labels"], content["splits"])
            kept = str(content["stamp"])
    except Exception:  # whatever NumPy makes of a damaged file
        return None
    files, labels, splits = vars(annotations).values()
    whole = files.ndim == 1 and files.dtype.kind == "U" and labels.dtype == splits.dtype == np.uint8
    whole = whole and labels.shape == (len(files), len(CELEBA)) and splits.shape == (len(files),)
    whole = whole and labels.max(initial=0) <= 1 and splits.max(initial=0) <= 2
    return annotations if whole and kept == stamp else None


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
    try:
        files = np.array([part[0].decode() for part in parts])
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} has names of images that are not UTF-8 ({error}); get it again") from error
    return files, (labels.reshape(len(rows), -1)[:, order] > 0).astype("u1")


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
            return np.fromstring(text, dtype=np.int64, sep=" ")  # narrower types would wrap 257 to 1
        except (DeprecationWarning, ValueError):
            return None


def check_complete(sources: Sources, names: set[str], files: np.ndarray) -> None:
    """
    Raises:
        ValueError: images are missing that the attributes name, or there are others.
    """
    missing = sorted(file for file in files.tolist() if file.lower() not in names)
    if missing or len(names) != len(files):
        raise ValueError(
            f"{sources.images} has {len(names)} images and {sources.attributes.name} {len(files)} rows"
            + (f"; {len(missing)} are missing, the first {missing[0]}" if missing else "")
            + "; complete the images, or take annotations of the same release"
        )


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
    check_complete(sources, names, annotations.files)
    expected = decode_image(read, annotations.files[0], sources.images).size

    def fill(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        files = annotations.files[indices].tolist()
        images = [fitted(decode_image(read, name, sources.images, expected), SIZE, SIZE) for name in files]
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
    about = read_json(store / "store.json")
    made = about.get("made") if isinstance(about, dict) else None
    annotations = made.get("annotations") if isinstance(made, dict) else None
    now = json.loads(sources.stamp())
    if isinstance(annotations, list) and [part[1:2] for part in annotations if isinstance(part, list)] != [
        part[1:2] for part in now
    ]:
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
