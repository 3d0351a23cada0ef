"""ONNX Runtime Web for tests: files of the right names, or the package itself where it can be had."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from zsteer.pages.runtime import ABOUT, PACKAGE, SCRIPT, WASM


def write_package(folder, name="onnxruntime-web", version="1.30.0", without=None):
    """A package's folder with files of the right names."""
    files = {ABOUT: json.dumps({"name": name, "version": version}), SCRIPT: "export default 1", WASM: "wasm"}
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if file != without:
            (folder / file).write_text(text)
    return folder


def packed(package: Path) -> Path:
    """A package's folder as npm packs it, beside the folder."""
    path = package.with_suffix(".tgz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(package, "package")
    return path


def real_package(folder: Path) -> Path | None:
    """The package that ZSTEER_ORT_WEB names, or that npm fetches within a minute; None without either."""
    if given := os.environ.get("ZSTEER_ORT_WEB"):
        return Path(given)
    if (npm := shutil.which("npm")) is None:
        return None
    try:
        words = [npm, "pack", f"{PACKAGE}@1.30.0", "--fetch-retries=0"]
        subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return next(folder.glob("*.tgz"), None)
