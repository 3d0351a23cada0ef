"""Fuzz every reader, guided by the code that its inputs reach: `make fuzz`, ten minutes each.

    python -m torture.fuzz [--seconds 600] [--jobs 2] [NAME ...]

Files of one reader share its time. What reached code that nothing else had is kept in `corpus`, where the tests read it
again; what a reader has no line for ends its fuzzing, and is left in `dist/fuzz` beside the traceback.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

LARGEST = 8192  # bytes of an input that is kept
RESULTS = Path("dist/fuzz")
LIMITS = ("-rss_limit_mb=6000", "-timeout=120", "-use_value_profile=1", "-max_len=1000000", "-len_control=0")
MERGE = "-merge=1"
OURS = [
    "zsteer",
    "PIL",
    "numpy.lib._format_impl",
    "omegaconf",
    "tarfile",
    "yaml",
]  # whose lines and branches are counted


def fuzz(name: str, arguments: list[str]) -> None:
    """Read mutated files in this process, which libFuzzer ends."""
    warnings.simplefilter("ignore")  # libraries warn of what they then refuse
    with atheris.instrument_imports(include=OURS):  # pyright: ignore[reportAttributeAccessIssue]
        from torture.readers import READERS

        reader = READERS[name]
        folder = Path(tempfile.mkdtemp()) / "whole"
        folder.mkdir()
        os.environ["XDG_CACHE_HOME"] = str(folder.parent / "cache")
        path = reader.make(folder)
        reader.read(path)
    if MERGE not in arguments:
        (Path(arguments[0]) / "whole").write_bytes(path.read_bytes())
    again = f"{sys.executable} -m torture.fuzz --one {shlex.quote(name)}"  # what a merge calls by the shell
    atheris.Setup([again, *arguments], lambda content: reader.read_or_refuse(content, path, folder))
    atheris.Fuzz()


def fuzzed(name: str, seconds: int) -> int:
    """Fuzz a reader in a process of its own, then keep the small inputs that reached more; the exit code."""
    from torture.readers import corpus

    results = RESULTS / corpus(name).stem
    inputs, kept = results / "inputs", results / "kept"
    for folder in (inputs, kept):
        folder.mkdir(parents=True, exist_ok=True)
    if corpus(name).exists():
        zipfile.ZipFile(corpus(name)).extractall(inputs)
    started = time.monotonic()
    code = _process(name, results, inputs, f"-max_total_time={seconds}", *LIMITS)
    took = time.monotonic() - started
    for file in inputs.iterdir():
        if file.stat().st_size > LARGEST:
            file.unlink()
    _process(name, results, kept, inputs, MERGE)
    corpus(name).parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(corpus(name), "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(kept.iterdir()):
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    print(f"{name}: {took:.0f} s, {len(list(kept.iterdir()))} inputs kept", "" if code == 0 else f", exit code {code}")
    return code


def _process(name: str, results: Path, *arguments: object) -> int:
    words = [sys.executable, "-m", "torture.fuzz", "--one", name, *map(str, arguments), f"-artifact_prefix={results}/"]
    with open(results / "log.txt", "a") as log, tempfile.TemporaryDirectory() as room:
        return subprocess.run(words, stdout=log, stderr=log, env={**os.environ, "TMPDIR": room}).returncode


def main() -> None:
    """Fuzz the readers that were asked for, or all.

    Raises:
        SystemExit: where a reader met what it has no line for.
    """
    if sys.argv[1:2] == ["--one"]:
        return fuzz(sys.argv[2], sys.argv[3:])
    from torture.readers import READERS

    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(READERS):
        parser.error(f"no reader is called {', '.join(unknown)}; known are {', '.join(READERS)}")
    names = asked.names or list(READERS)
    files = Counter(reader.read for reader in READERS.values())
    with ThreadPoolExecutor(asked.jobs) as pool:
        times = [asked.seconds // files[READERS[name].read] for name in names]
        codes = list(pool.map(fuzzed, names, times))
    sys.exit(max(map(abs, codes), default=0))


if __name__ == "__main__":
    main()
