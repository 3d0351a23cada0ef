"""Write the tables of `docs/results.md` and of the README anew, from the CSV files here.

`python docs/results.py outputs/compare/RUN=default` first has a comparison's `methods.csv` take the place of
`docs/default.csv`. A table stands between `<!-- NAME: WHAT -->` and `<!-- end -->`, WHAT being a level (`flip`, `1` or
`2`), `ends`, `agreement`, `summary` or, of what `docs/disentangling.py` has measured, `generators` and `told`;
`<!-- NAME: summary: ONE, OTHER -->` has these contenders only.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from zsteer.evaluation.figures import Row, means
from zsteer.evaluation.report import agreement, markdown, markdown_of_ends, named_level
from zsteer.evaluation.trials import FLIP, TABLE_LEVELS
from zsteer.statistics import mean_known

FOLDER = Path(__file__).parent
PAGES = (FOLDER / "results.md", FOLDER / "disentangling.md", FOLDER.parent / "README.md")
NAMES = "|".join(path.stem for path in FOLDER.glob("*.csv"))
PLACE = re.compile(rf"<!-- ({NAMES}): (\w+)(?:: ([^\n]+))? -->\n.*?<!-- end -->", re.DOTALL)


def rows_of(path: Path) -> list[Row]:
    """The rows of a comparison's table, as they were before they were written."""
    table = pd.read_csv(path, dtype={"level": str})
    rows: list[Any] = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{**row, "level": row["level"] if row["level"] == FLIP else float(row["level"])} for row in rows]


def summary(rows: list[Row], contenders: str | None) -> str:
    """Contenders' means over the targets: ratios, the second judge's behind a stroke, and what became of faces."""
    levels = [named_level(level) for level in TABLE_LEVELS]
    heads = ["method", *levels, "gain 1 σ, 2 σ", "seen at the end", "other states kept"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in contenders.split(", ") if contenders else dict.fromkeys(row["contender"] for row in rows):
        cells = []
        for level in TABLE_LEVELS:
            ratios = [means(rows, level, figure)[name] for figure in ("versus", "second_versus")]
            cells.append(" / ".join("–" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
        cells.append(", ".join(f"{means(rows, level, 'arrived')[name]:.0%}" for level in TABLE_LEVELS[1:]))
        own = [row for row in rows if row["contender"] == name and row["level"] == TABLE_LEVELS[0]]
        for figure in ("success_rate_at_end", "preservation_rate_at_end"):
            mean = mean_known(row[figure] for row in own)
            cells.append("–" if mean is None else f"{mean:.0%}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


GENERATORS = {  # heads of a table, and the figures below them with the style of each
    "FID": ("fid", ".2f"),
    "rates": ("rates", ".0f"),
    "DCI": ("dci_disentanglement", ".3f"),
    "MIG": ("mig", ".3f"),
    "side effects": ("attribute_dependency", ".2f"),
    "their ratio": ("versus", ".2f"),
    "get there": ("arrived", ".0%"),
    "seen at the end": ("success_rate_at_end", ".0%"),
    "other states kept": ("preservation_rate_at_end", ".0%"),
}


def generators(path: Path) -> str:
    """How each generator was trained and is controlled: its own figures, and what the judge sees, for each seed."""
    lines = [f"| preset | controlled by | {' | '.join(GENERATORS)} |", "|---" * (len(GENERATORS) + 2) + "|"]
    for (preset, contender), own in pd.read_csv(path).groupby(["preset", "contender"], sort=False):
        cells = [f"`{preset}`", str(contender)]
        for name, style in GENERATORS.values():
            cell = " / ".join(format(value, style) for value in own[name])
            interval = f"{name}_interval"
            cells.append(f"{cell} ± {own[interval].max():.3f}" if interval in own else cell)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def told(path: Path) -> str:
    """How far a conditional generator does what it is told, by attribute."""
    heads = ["told", "drawn so", "told it has it", "told it has not", "other labels kept", "correlation"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in pd.read_csv(path).to_dict("records"):
        shares = [
            "–" if pd.isna(row[name]) else f"{row[name]:.1%}" for name in ("met", "met_with", "met_without", "kept")
        ]
        correlation = "–" if pd.isna(row["correlation"]) else f"{row['correlation']:.2f}"
        lines.append(f"| {' | '.join([row['attribute'], *shares, correlation])} |")
    return "\n".join(lines)


def table(name: str, what: str, contenders: str | None) -> str:
    """One of a comparison's tables, or a summary of them."""
    if what == "generators":
        return generators(FOLDER / f"{name}.csv")
    if what == "told":
        return told(FOLDER / f"{name}.csv")
    rows = rows_of(FOLDER / f"{name}.csv")
    if what == "ends":
        return markdown_of_ends(rows)
    if what == "agreement":
        return "\n\n".join(agreement(rows))
    if what == "summary":
        return summary(rows, contenders)
    return markdown(rows, FLIP if what == FLIP else float(what))


def rewritten(text: str) -> str:
    """A page with its tables as the CSV files have them."""
    return PLACE.sub(lambda place: f"{place[0].splitlines()[0]}\n\n{table(*place.groups())}\n\n<!-- end -->", text)


def main() -> None:
    """Take new files, and write the pages."""
    for run, _, name in (word.rpartition("=") for word in sys.argv[1:]):
        shutil.copy(Path(run) / "methods.csv", FOLDER / f"{name}.csv")
    for page in PAGES:
        page.write_text(rewritten(page.read_text()))


if __name__ == "__main__":
    main()
