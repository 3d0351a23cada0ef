"""`python docs/notebook.py`: execute the notebook of `examples` and keep what it shows in its file."""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "controllable_generation.ipynb"


def executed() -> nbformat.NotebookNode:
    """The notebook with what its cells show now, its pictures as PNG alone."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    quiet = {**os.environ, "TQDM_DISABLE": "1"}  # no progress bars in what is kept
    NotebookClient(notebook, record_timing=False).execute(env=quiet)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/jpeg", None)
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
