"""What an evaluation gives: figures, and a table of attributes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from zsteer.files import write_json, write_table
from zsteer.results import Result

FLOAT_FORMAT = "%.4f"


@dataclass(frozen=True, repr=False)
class Scores(Result):
    """Figures of a network, and a table with a row for each attribute.

    Args:
        metrics: as in `metrics.json`.
        table: a column for each figure; what is unknown is missing.
    """

    metrics: dict[str, Any]
    table: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write `attributes.csv` and `metrics.json`."""
        write_table(folder / "attributes.csv", self.table, FLOAT_FORMAT)
        write_json(folder / "metrics.json", self.metrics)

    def report(self, folder: Path) -> str:
        """The table, the figures, and where they are."""
        return f"{self}\n  {folder / 'attributes.csv'}"

    def __str__(self) -> str:
        figures = "\n".join(f"{name}: {value}" for name, value in self.metrics.items())
        return f"{self.table.to_csv(index=False, float_format=FLOAT_FORMAT)}\n{figures}"


def attribute_table(figures: dict[str, dict[str, float | None]]) -> pd.DataFrame:
    """A row for each attribute, from each figure by attribute."""
    names = list(dict.fromkeys(name for column in figures.values() for name in column))
    columns = {figure: [values.get(name) for name in names] for figure, values in figures.items()}
    return pd.DataFrame({"attribute": names, **columns}).astype(dict.fromkeys(columns, float))
