"""TensorBoard event files that are written at once, whole.

A sweep writes hundreds of runs. TensorBoard's own writer takes a thread for each and computes checksums in Python,
which at 0.15 s a run would cost more than the steering; so records are framed here, with its protocol buffers.
"""

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils.tensorboard.summary import hparams

from zsteer.files import atomic_write
from zsteer.pictures import Png


class Events:
    """Summaries that become one event file of a run."""

    def __init__(self) -> None:
        self.events = [Event(wall_time=time.time(), file_version="brain.Event:2")]

    def add(self, summary: Summary, step: int = 0) -> None:
        """Add a summary at a step."""
        self.events.append(Event(wall_time=time.time(), step=step, summary=summary))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a number."""
        self.add(Summary(value=[Summary.Value(tag=tag, simple_value=value)]), step)

    def image(self, tag: str, png: Png, step: int) -> None:
        """Add a picture."""
        image = Summary.Image(encoded_image_string=png.data, height=png.height, width=png.width, colorspace=3)
        self.add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def hparams(self, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Add the run's row in the HParams table, its figures also as scalars."""
        for tag, value in figures.items():
            self.scalar(tag, value, 0)
        for summary in hparams(dict(settings), dict(figures)):
            self.add(summary)

    def save(self, folder: Path) -> None:
        """Write the event file into a run's folder, in place of what a run that was killed left there."""
        stale = set(folder.glob("events.out.tfevents.*.zsteer"))
        path = folder / f"events.out.tfevents.{int(time.time())}.zsteer"
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"".join(_record(event.SerializeToString()) for event in self.events))
        for other in stale - {path}:
            other.unlink()


def _record(data: bytes) -> bytes:
    """A record of TensorFlow's format: length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
