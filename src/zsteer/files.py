"""Files that are either whole or absent: each is written under a temporary name and then renamed."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` if the block ends well and removed if it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's files are private; a result is not
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def beside(checkpoint: str | os.PathLike | None) -> dict[str, Any]:
    """The `config` and `figures` that a training run of ours wrote beside its weights; {} for other weights."""
    path = Path(checkpoint).with_suffix(".json") if checkpoint else None
    if path is None or not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text())
    except ValueError:
        return {}
    ours = isinstance(about, dict) and all(isinstance(about.get(part), dict) for part in ("config", "figures"))
    return about if ours else {}


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinity, which JSON lacks, are refused."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
