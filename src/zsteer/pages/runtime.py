"""ONNX Runtime Web, by which a page runs networks: two files of the npm package `onnxruntime-web`.

Nothing here imports torch, so that a wrong package is reported at once.
"""

import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "onnxruntime-web"
REMEDY = f"fetch it by `npm pack {PACKAGE}` and give runtime={PACKAGE}-VERSION.tgz"
# Of its builds the smallest, that for the CPU alone; what loads the wasm is inside the script.
ABOUT, SCRIPT, WASM = "package.json", "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"
OLDEST, NEWEST = (1, 25), (1, 30)  # versions that were tried; before these the script looks for a file beside it


@dataclass(frozen=True)
class Runtime:
    """What a page needs: a module of JavaScript, and the code that it runs."""

    version: str
    script: bytes
    wasm: bytes

    @property
    def is_tried(self) -> bool:
        """Whether the version is none after those that were tried."""
        return _number(self.version) <= NEWEST


def read_runtime(path: Path) -> Runtime:
    """The runtime from the package's folder, or from the `.tgz` that npm packs.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else, too old, or lacks a file.
    """
    if not path.exists():
        raise FileNotFoundError(f"runtime={path}: no such file or folder; {REMEDY}")
    try:
        found = _files_of(path)
    except Exception as error:  # whatever a damaged archive makes of tarfile
        raise ValueError(f"runtime={path} is no npm package that can be read ({error}); {REMEDY}") from error
    if missing := [name for name in (ABOUT, SCRIPT, WASM) if name not in found]:
        raise ValueError(f"runtime={path} has no {' and no '.join(missing)}; {REMEDY}")
    version = _version_of(found[ABOUT])
    if version is None or _number(version) < OLDEST:
        what = "another package" if version is None else f"version {version}"
        raise ValueError(f"runtime={path} is {what}; it must be {PACKAGE} {_said(OLDEST)} or newer; {REMEDY}")
    return Runtime(version, found[SCRIPT], found[WASM])


def _files_of(path: Path) -> dict[str, bytes]:
    """Those of the three files that are there, by their names in the package."""
    names = (ABOUT, SCRIPT, WASM)
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:  # in one pass, since going back unpacks all anew
            name = member.name.removeprefix("package/")
            file = archive.extractfile(member) if name in names and member.isfile() else None
            if file is not None:
                found[name] = file.read()
    return found


def _version_of(about: bytes) -> str | None:
    """What `package.json` says; None where it is another package's."""
    try:
        described = json.loads(about)
    except (ValueError, RecursionError):
        return None
    if not isinstance(described, dict) or described.get("name") != PACKAGE:
        return None
    version = str(described.get("version"))
    return version if re.match(r"\d{1,4}\.\d{1,4}\.", version) else None


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _said(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))
