"""Edits kept as ordinary runs of the command `steer`, one after the other, and the words that make them again."""

import shlex
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from safetensors.torch import save_file

from zsteer.explore.edits import Edits
from zsteer.files import atomic_write, slug
from zsteer.sweeps.hydra_internals import word_of

START = "start.safetensors"  # the noise before all edits


@dataclass(frozen=True)
class Kept:
    """Where edits were kept: the folder of all their runs, those, and what makes them again."""

    folder: Path
    runs: list[Path]
    shell: str
    python: str


def keep(edits: Edits, folder: Path) -> Kept:
    """Keep edits as runs in a new folder inside `folder`, each of which goes on where the one before it ended.

    Raises:
        ValueError: there is no edit.
        OSError: the folder cannot be written.
    """
    if not edits.all:
        raise ValueError("There is no edit to keep; move the slider first.")
    commands = edits.studio.commands
    with edits.studio.lock:
        own = next(path for number in count(1) if not (path := folder / f"kept{number}").exists())
        noise, runs, lines, calls = own / START, [], [], ["import zsteer", ""]
        with atomic_write(noise) as temporary:
            save_file({"noise": edits.start.contiguous()}, temporary)
        for number, edit in enumerate(edits.all, 1):
            words = [*commands.words(edit.aim.method), word_of("noise", str(noise)), *edit.words()]
            run = own / slug([str(number), edit.sign, edit.aim.target])
            commands.run(words, run)
            options = [] if commands.config_dir is None else ["--config-dir", commands.config_dir]
            lines.append(f"{commands.program} {shlex.join([*options, *words])}")
            named = [] if commands.config_dir is None else [f"config_dir={commands.config_dir!r}"]
            calls.append(f"zsteer.steer({', '.join([*map(repr, words), *named])})")
            noise = run
            runs.append(run)
    return Kept(own, runs, "\n".join(lines), "\n".join(calls))
