"""What the README tells users to type exists and composes."""

import re
import shlex
from pathlib import Path

import pytest
from places import ROOT

from zsteer.app.composition import compose

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [
    shlex.split(line, comments=True)
    for block in blocks("bash")
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python scripts/") and "--config-dir" not in line  # whose configs are the user's
]


def test_the_readme_has_commands():
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words) for words in COMMANDS])
def test_each_command_composes(words):
    words = words[words.index("python") + 1 :]
    script = ROOT / words[0]
    assert script.is_file()
    # `resume` is the command's own word, not a key.
    given = [word for word in words[1:] if "=" in word and not word.startswith("resume=")]
    overrides = [word.split(",")[0] for word in given] if "-m" in words else given
    compose(script.stem, overrides)


@pytest.mark.parametrize("path", re.findall(r"\]\((docs/[^)]+)\)", README))
def test_each_picture_and_table_is_there(path):
    beginning = {".png": b"\x89PNG", ".csv": b"level,contender,target", ".md": b"# "}[Path(path).suffix]
    assert (ROOT / path).read_bytes().startswith(beginning)


def test_make_targets_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert target in targets
