"""What the README and the pages of docs tell users to type exists and composes; tables are those of the CSV files."""

import importlib
import re
import shlex

import nbformat
import pytest
from places import ROOT

from zsteer.app.composition import compose

README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}


def blocks(language: str) -> list[str]:
    return [
        block for page in PAGES.values() for block in re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)
    ]


NOTEBOOK = nbformat.read(ROOT / "examples" / "controllable_generation.ipynb", as_version=4)
TOLD = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown"]
LINES = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
LINES += [  # in a sentence or a table, as `python scripts/steer.py target=Bangs` or `steer.py target=Bangs`
    f"python scripts/{command}"
    for page in (*PAGES.values(), *TOLD)
    for command in re.findall(
        r"`(?:python scripts/)?(\w+\.py [^`…]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    )
    if (ROOT / "scripts" / command.split()[0]).is_file()
]
COMMANDS = [
    shlex.split(line, comments=True)
    for line in dict.fromkeys(line.replace("\n", " ") for line in LINES)
    if line.startswith("python scripts/") and "--config-dir" not in line  # whose configs are the user's
]


def test_the_readme_is_short_and_has_commands():
    assert len(README.encode()) <= 10_000
    assert len(re.findall(r"^python scripts/", README, flags=re.M)) > 15


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words) for words in COMMANDS])
def test_each_command_composes(words):
    words = words[words.index("python") + 1 :]
    script = ROOT / words[0]
    assert script.is_file()
    # `resume` is the command's own word, not a key, and RUN a folder that a reader has.
    given = [word for word in words[1:] if "=" in word and not word.startswith("resume=") and not word.endswith("=RUN")]
    first_of = [re.split(r",(?![^\[{]*[\]}])", word)[0] for word in given]  # of several values, but not of a list's
    overrides = first_of if "-m" in words else given
    compose(script.stem, overrides)


LINKS = {
    path.parent / link
    for path, page in PAGES.items()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
}


def test_pages_have_links():
    assert len(LINKS) > 40


@pytest.mark.parametrize("path", sorted(LINKS), ids=str)
def test_each_picture_table_and_page_is_there(path):
    beginnings = {".png": b"\x89PNG", ".csv": b"level,contender,target", ".md": (b"# ", b"---\n"), ".ipynb": b"{"}
    assert path.is_dir() or path.read_bytes().startswith(beginnings.get(path.suffix, b""))


def test_make_targets_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z]+)", "".join(PAGES.values()), flags=re.M):
        assert target in targets


def test_tables_are_those_of_the_csv_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    results = importlib.import_module("results")
    for page in results.PAGES:
        text = page.read_text()
        assert results.PLACE.search(text)
        assert text == results.rewritten(text)
