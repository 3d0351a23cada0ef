"""Folders that one run at a time writes into."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from zsteer.files import is_main_process

FILE = ".lock"


@contextmanager
def in_use(folder: Path, key: str) -> Iterator[None]:
    """Keep all others out of a folder while the block runs; of a distributed run's processes, the main one does.

    The lock is the kernel's and goes with the process, whatever ends it; the file that it is on goes with the block.

    Raises:
        ValueError: another run has the folder.
    """
    if not is_main_process():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{key}={folder} is in use by another run; wait for its end, or name another folder") from None
    try:
        yield
    finally:
        (folder / FILE).unlink(missing_ok=True)  # before the release: who gets the lock then has a file of that name
        lock.release()
