"""The notebook runs, and shows what its file has kept."""

import importlib
import re

import nbformat
import pytest
from places import ROOT

FILE = ROOT / "examples" / "controllable_generation.ipynb"
KEPT = nbformat.read(FILE, as_version=4)


def text_of(output):
    return output.get("data", {}).get("text/plain", output.get("text"))


def shown(notebook):
    """What each code cell shows: its kinds, and its lines without digits and order, in which machines may differ."""
    return [
        [
            (
                output["output_type"],
                sorted(output.get("data", {})),
                sorted(re.sub(r"[-\d.]+", "#", str(text_of(output))).splitlines()),
            )
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_every_cell_keeps_a_picture_or_a_table():
    kinds = [kind for outputs in shown(KEPT) for _, kinds, _ in outputs for kind in kinds if kind != "text/plain"]
    assert len(kinds) >= 12
    assert set(kinds) == {"image/png", "text/html"}
    assert all(shown(KEPT))


def test_its_file_is_small_and_tells_nothing_of_a_machine():
    assert FILE.stat().st_size < 1_500_000
    text = "\n".join(line for line in FILE.read_text().splitlines() if '"image/png"' not in line)
    assert not re.search(r"/(home|root|tmp|usr)\b|warning|traceback|it/s|iopub", text, flags=re.I)


@pytest.mark.filterwarnings("ignore:.*encryption.*")
def test_it_shows_the_same_again(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    again = importlib.import_module("notebook").executed()
    assert shown(again) == shown(KEPT)
    assert [cell.source for cell in again.cells] == [cell.source for cell in KEPT.cells]
