"""A run made again from what its folder says, and whether the bits are the same."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsteer.app.folders import write_config
from zsteer.app.provenance import data_noted, differences
from zsteer.app.records import COMPARED, Record
from zsteer.files import is_main_process, read_json, write_json
from zsteer.results import Result
from zsteer.status import recorded

if TYPE_CHECKING:
    from zsteer.app.main import Command

log = logging.getLogger(__name__)

AGAIN = "run"  # the folder of the new run, in that of the command


@dataclass(frozen=True, repr=False)
class Reproduced(Result):
    """A run made again.

    Args:
        faults: what is not the same, by file; of a file that is the same, null.
        differences: a line for each version, machine, source or data that is not what the record says.
    """

    run: Path
    faults: dict[str, str | None]
    differences: list[str]

    @property
    def equal(self) -> bool:
        """Whether all bits are the same."""
        return not any(self.faults.values())

    @property
    def fault(self) -> str | None:
        """What the command fails with; None if all bits are the same."""
        differing = [name for name, fault in self.faults.items() if fault is not None]
        return None if self.equal else f"run={self.run} is not the same again: {', '.join(differing)}"

    @property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        return {"run": str(self.run), "equal": self.equal, "files": self.faults, "differences": self.differences}

    def write(self, folder: Path) -> None:
        """Write `metrics.json`."""
        write_json(folder / "metrics.json", self.metrics)

    def report(self, folder: Path) -> str:
        """What is the same and what is not, and where the new run is."""
        return f"{self}\n  {folder / AGAIN}"

    def __str__(self) -> str:
        lines = [f"  {name}: {fault or 'the same, bit for bit'}" for name, fault in self.faults.items()]
        return "\n".join([f"{self.run}, made again", *lines, *(f"  {line}" for line in self.differences)])


def reproduce(record: Record, command: "Command", folder: Path | None) -> Reproduced:
    """Make a run again, and compare.

    Args:
        folder: the new run is in its `run`; None compares in a folder that is removed.

    Raises:
        ValueError, FileNotFoundError: a file that was read is another now or is gone, before any work.
    """
    command.ready(record.cfg, record.words)
    now = command.provenance(record.cfg, record.words)
    refuse_changed_files(record, now)
    for line in differences(record.provenance, {**now, "data": record.provenance.get("data")}):
        log.warning("%s", line)
    with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory() as place:
        again = Path(place) / AGAIN
        write_config(again, record.cfg, record.words)
        if "run_folder" in record.cfg:
            record.cfg.run_folder = str(again)
        with recorded(again, now), data_noted(now):
            command.perform(record.cfg, again)
        reproduced = Reproduced(
            record.folder,
            dict(compared(record.folder, again, COMPARED[record.command])) if is_main_process() else {},
            differences(record.provenance, now),
        )
    if folder is not None and is_main_process():
        reproduced.write(folder)
    return reproduced


def refuse_changed_files(record: Record, now: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: a file that the run read is not what it was.
    """
    for key, file in dict(record.provenance.get("files") or {}).items():
        path, then, found = file.get("path"), file.get("sha256"), now["files"].get(key)
        if found is None:
            raise FileNotFoundError(f"{key}={path}: no such file; start from the folder that the run was started from")
        if found["sha256"] != then:
            raise ValueError(
                f"{key}={path} has changed since the run: its SHA-256 was {then}, and is {found['sha256']}"
            )


def compared(one: Path, other: Path, patterns: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """What differs, by file; None of a file that is the same."""
    for pattern in (*patterns, "metrics.json"):
        for name in sorted({path.relative_to(side).as_posix() for side in (one, other) for path in side.glob(pattern)}):
            absent = [side for side in (one, other) if not (side / name).is_file()]
            yield name, f"is not in {absent[0]}" if absent else COMPARE[Path(name).suffix](one / name, other / name)


def _tensors(one: Path, other: Path) -> str | None:
    import torch
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    forms = [{name: (tensor.dtype, tensor.shape) for name, tensor in file.items()} for file in (first, second)]
    if forms[0] != forms[1]:
        return "has other tensors"
    worst = {}
    for name, tensor in first.items():
        bits = [side.contiguous().flatten().view(torch.uint8) for side in (tensor, second[name])]
        if not torch.equal(*bits):
            worst[name] = (tensor.double() - second[name].double()).abs().max().item()
    if not worst:
        return None
    most = max(worst, key=lambda name: worst[name])
    return f"{len(worst)} of {len(first)} tensors differ, {most} by {worst[most]:.2g}"


def _figures(one: Path, other: Path) -> str | None:
    first, second = read_json(one), read_json(other)
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return "is damaged"
    differing = [key for key in dict.fromkeys((*first, *second)) if first.get(key) != second.get(key)]
    return ", ".join(f"{key} was {first.get(key)} and is {second.get(key)}" for key in differing[:3]) or None


def _lines(one: Path, other: Path) -> str | None:
    first, second = (path.read_text(encoding="utf-8").splitlines() for path in (one, other))
    differing = sum(before != after for before, after in zip(first, second, strict=False)) + abs(
        len(first) - len(second)
    )
    return f"{differing} of {max(len(first), len(second))} lines differ" if differing else None


def _pixels(one: Path, other: Path) -> str | None:
    from zsteer.data.photos import open_photo

    first, second = open_photo(one), open_photo(other)
    return None if (first.size, first.tobytes()) == (second.size, second.tobytes()) else "has other pixels"


COMPARE: dict[str, Callable[[Path, Path], str | None]] = {
    ".safetensors": _tensors,
    ".json": _figures,
    ".csv": _lines,
    ".png": _pixels,
}
