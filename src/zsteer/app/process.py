"""A command's process: what it prints cannot fail it, and it ends with the one that started it."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

from zsteer.files import is_main_process
from zsteer.sweeps.processes import STARTED_BY

EVERY = 1.0  # seconds between two looks at the process that started this one
GRACE = 60.0  # seconds that the others of a distributed run have once the first is gone


class _Heedless(io.FileIO):
    """A file that takes for written what cannot be: nobody reads behind `| head`, or the disk is full."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


@contextmanager
def unfailing_streams() -> Iterator[None]:
    """Have prints succeed where nobody reads them, the stream is closed, or its encoding lacks a letter."""
    with redirect_stdout(_unfailing(sys.stdout)), redirect_stderr(_unfailing(sys.stderr)):
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()


def _unfailing(stream: Any) -> Any:
    if stream is None:  # it was closed; a file of ours that got its number would get what C libraries print, too
        return _heedless(os.open(os.devnull, os.O_WRONLY), "utf-8", line_buffering=False)
    if stream is not sys.__stdout__ and stream is not sys.__stderr__:  # a notebook's, which knows better
        return stream
    with suppress(OSError):
        stream.flush()
    unbuffered = stream.line_buffering or stream.write_through
    return _heedless(stream.fileno(), stream.encoding, line_buffering=unbuffered)


def _heedless(handle: int, encoding: str, line_buffering: bool) -> io.TextIOWrapper:
    file = io.BufferedWriter(_Heedless(handle, "w", closefd=False))
    return io.TextIOWrapper(file, encoding, errors="replace", line_buffering=line_buffering)


def end_with_parent() -> None:
    """Have this process get SIGTERM once the one that started it is gone: a sweep, or a run's first process."""
    if STARTED_BY not in os.environ and is_main_process():
        return
    parent = int(os.environ.pop(STARTED_BY, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os.kill(os.getpid(), signal.SIGTERM)
        if not is_main_process():  # it has nothing to save, and may be waiting for the first, deaf to signals
            time.sleep(GRACE)
            os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
