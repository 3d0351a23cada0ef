"""What the README and the pages of docs tell users to type composes and runs; tables are those of the CSV files."""

import importlib
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import torch
from PIL import Image
from places import GOLDEN, ROOT
from safetensors.torch import save_file

import zsteer
from zsteer.app import commands
from zsteer.app.composition import compose, known_keys
from zsteer.networks.tutorial import Classifier, Generator

README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
NOTEBOOK = nbformat.read(ROOT / "examples" / "controllable_generation.ipynb", as_version=4)
TOLD = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown"]
# A mark holds for the rest of its section. `composed: WHY`: commands are not run; `small: WORDS`: they are, with these
# words besides, as far as they know the keys; `run by: FILE`: another test runs them.
PART = re.compile(
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$|^(?P<level>#+) [^\n]*$"
    r"|^<!-- (?P<kind>composed|small|run by): (?P<what>[^\n]*) -->$"
    r"|^[^\n]+(?:\n(?!```|#|<!--)[^\n]+)*$",
    flags=re.DOTALL | re.MULTILINE,
)
INLINE = re.compile(r"`(?:python scripts/)?(\w+\.py [^`…]+)`")


@dataclass(frozen=True)
class Line:
    """A line for a shell, or a command in a sentence or a table, and the mark that holds for it."""

    text: str
    kind: str | None
    what: str | None

    @property
    def words(self) -> list[str] | None:
        """A script and what is given to it, if it is one of ours."""
        command = re.sub(r'^eval "\$\((.*)\)".*', r"\1", self.text)
        words = shlex.split(command.removeprefix("PYTHONPATH=. "), comments=True)
        return words[1:] if words[0] == "python" and words[1].startswith("scripts/") else None

    @property
    def extended(self) -> list[str]:
        """The words, with those that make it small."""
        assert self.words is not None
        keys = {*known_keys(Path(self.words[0]).stem), "hydra"}
        small = (self.what or "").split() if self.kind == "small" else []
        return [*self.words, *(word for word in small if re.split(r"[.=]", word)[0] in keys)]


def lines_of(page: str) -> list[Line]:
    """What a page tells its reader to type, from the top."""
    lines, level, marks = [], 0, {}
    for part in PART.finditer(page):
        if part["level"]:
            level = len(part["level"])
            marks = {above: mark for above, mark in marks.items() if above < level}
        elif part["kind"]:
            marks[level] = (part["kind"], part["what"])
        else:
            texts = []
            if part["language"] == "bash":
                texts = part["code"].replace("\\\n", " ").splitlines()
            elif part["language"] is None:
                texts = [f"python scripts/{found}".replace("\n", " ") for found in INLINE.findall(part[0])]
            kind, what = marks[max(marks)] if marks else (None, None)
            lines += [Line(text, kind, what) for text in texts if text and not text.startswith("#")]
    return lines


LINES = {path.relative_to(ROOT): lines_of(page) for path, page in PAGES.items()}
COMMANDS = dict.fromkeys(
    tuple(line.words)
    for line in (
        *(line for lines in LINES.values() for line in lines),
        *(line for cell in TOLD for line in lines_of(cell)),
    )
    if line.words and "--config-dir" not in line.words and "-sc" not in line.words
)


def test_the_readme_is_short_and_has_commands():
    assert len(README.encode()) <= 10_000
    assert len([line for line in LINES[Path("README.md")] if line.words]) > 15


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words) for words in COMMANDS])
def test_each_command_composes(words):
    script = ROOT / words[0]
    assert script.is_file()
    # `resume` is the command's own word, not a key, and RUN a folder that a reader has.
    given = [word for word in words[1:] if "=" in word and not word.startswith("resume=") and not word.endswith("=RUN")]
    first_of = [re.split(r",(?![^\[{]*[\]}])", word)[0] for word in given]  # of several values, but not of a list's
    overrides = first_of if "-m" in words else given
    compose(script.stem, overrides)


def test_a_mark_holds_for_the_rest_of_its_section():
    block = "```bash\n{}\n```\n\n"
    page = "# Page\n\n<!-- composed: hours -->\n\nBy `a.py b=1`:\n\n" + block.format("one \\\n    two")
    page += "## Part\n\n<!-- small: c=2 -->\n\n" + block.format("three") + "## Other\n\n" + block.format("# four\nfive")
    assert lines_of(page) == [
        Line("python scripts/a.py b=1", "composed", "hours"),
        Line("one      two", "composed", "hours"),
        Line("three", "small", "c=2"),
        Line("five", "composed", "hours"),
    ]
    assert lines_of("# Page\n\n" + block.format("one")) == [Line("one", None, None)]


@pytest.mark.parametrize("path", LINES, ids=str)
def test_each_line_is_run_or_a_mark_says_why_not(path):
    for line in LINES[path]:
        if line.kind == "run by":
            assert (ROOT / str(line.what)).is_file()
        elif line.kind != "composed":
            assert line.words or line.text.startswith("make "), line.text


MINE = """
from zsteer.networks.tutorial import Classifier, Generator


class MyGenerator(Generator):
    def __init__(self, width):
        super().__init__(hidden_dim=width // 16)


class MyClassifier(Classifier):
    def __init__(self):
        super().__init__(n_classes=3, hidden_dim=8)
"""
SMALL_GAN = (
    *("data.num_train=32", "data.num_val=8", "data.num_test=64", "max_images=16", "data.batch_size=8", "trainer=cpu"),
    *("trainer.log_every_n_steps=1", "+trainer.enable_progress_bar=false"),
)


def perform(script: str, *words: str) -> None:
    """Run a command of a page in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words])
        try:
            getattr(commands, Path(script).stem)()
        except SystemExit as ended:
            assert not ended.code, " ".join([script, *words])


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The folder of a reader who has what pages speak of: runs, a sweep, a photo, weights and networks of their own."""
    folder = tmp_path_factory.mktemp("reader")
    condition = "gan.condition=[Smiling,Eyeglasses,Male,hair_length]"
    narrow = ("generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4", "generator.network.z_dim=16")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        zsteer.train_gan(condition, *narrow, *SMALL_GAN, "judge=none", folder="RUN")
        zsteer.train_classifier("classifier.network.hidden_dim=4", *SMALL_GAN, folder="trained")
        for path in Path("trained").glob("classifier.*"):  # so that RUN stands for all that a run can be
            shutil.copy(path, "RUN")
        zsteer.steer("num_images=2", "num_steps=2", "trainer=cpu", folder="outputs/steer/RUN")
        sweep = ("-m", "target=Smiling,Eyeglasses", "penalty_weight=0,0.1,1", "num_images=2", "num_steps=2")
        perform("scripts/steer.py", *sweep, "hydra.sweep.dir=DIR")
        Image.new("RGB", (80, 90), "orange").save("face.png")
        for name in ("pretrained_celeba.pth", "pretrained_classifier.pth"):
            shutil.copy(GOLDEN / name, name)
        Path("my_package.py").write_text(MINE)
        torch.save({"g_ema": Generator(hidden_dim=8).state_dict()}, "weights.pth")
        save_file(Classifier(n_classes=3, hidden_dim=8).state_dict(), "classifier.safetensors")
        networks = PAGES[ROOT / "docs" / "how-to" / "networks.md"]
        for block in re.findall(r"```yaml\n(# my_configs/.*?)```", networks, flags=re.DOTALL):
            path = Path(block.split()[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block)
    return folder


def run_lines() -> dict[Path, list[list[str]]]:
    """What is run of each page: what no page before it has."""
    pages, done = {}, []
    for path, lines in LINES.items():
        pages[path] = []
        for line in lines:
            if line.words and line.kind in (None, "small") and line.extended not in done:
                pages[path].append(line.extended)
                done.append(line.extended)
    return pages


RUN = run_lines()


def test_many_commands_are_run():
    assert sum(map(len, RUN.values())) > 35


@pytest.mark.parametrize("path", [path for path, lines in RUN.items() if lines], ids=str)
def test_the_commands_of_a_page_run(path, reader, monkeypatch):
    monkeypatch.chdir(reader)
    monkeypatch.syspath_prepend(reader)
    for words in RUN[path]:
        perform(*words)


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
