"""Draw what two experiments end in: `python docs/entanglement.py BASE INDEPENDENT SMALL`.

Each is a folder of `compare.py experiment=default_against_published`: for the generator of `correlated_data` whose
`data.correlation` is `celeba`, for its other one, and for that of `small_latent` whose noise has eight numbers.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from zsteer.app.composition import compose
from zsteer.files import atomic_write

LEVEL = 1.0  # σ of judged gain
TARGETS = list(compose("compare").targets)
PANELS = {"data": ("as CelebA's depend", "independent"), "noise": ("64 numbers", "8 numbers")}
COLOURS = {"tutorial λ=0.1": "tab:red", "projected": "tab:blue"}


def read(folder: str) -> dict[str, np.ndarray]:
    """Attribute dependency of each contender and its interval `[3, targets]`, NaN where no image arrived."""
    found = {name: np.full((3, len(TARGETS)), np.nan) for name in COLOURS}
    with (Path(folder) / "methods.csv").open() as file:
        for row in csv.DictReader(file):
            if row["level"] == str(LEVEL) and row["attribute_dependency"]:
                figures = [row[f"attribute_dependency{end}"] for end in ("", "_low", "_high")]
                found[row["contender"]][:, TARGETS.index(row["target"])] = figures
    return found


def main(base: str, independent: str, small: str) -> None:
    """Draw docs/entanglement.png, and print the means over the targets that all reach."""
    places = np.arange(len(TARGETS))
    figure = Figure(figsize=(12, 4.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (title, labels), other in zip(axes, PANELS.items(), (independent, small), strict=True):
        pair = read(base), read(other)
        shared = ~np.isnan([figures[name][0] for figures in pair for name in COLOURS]).any(axis=0)
        for label, figures, style, shift in zip(labels, pair, "o^", (-0.12, 0.12), strict=True):
            for name, colour in COLOURS.items():
                mean, low, high = figures[name]
                errors = [mean - low, high - mean]
                axis.errorbar(
                    places + shift, mean, errors, fmt=style, color=colour, ms=5, lw=1, label=f"{name}, {label}"
                )
                print(f"{title}, {label}, {name}: {mean[shared].mean():.3f} over {shared.sum()}")
        axis.set_xticks(places, [target.replace("_", " ") for target in TARGETS], rotation=40, ha="right")
        axis.set_title(title)
        axis.legend(fontsize=8, loc="lower left")
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel(f"attribute dependency at +{LEVEL:g} σ")
    with atomic_write(Path(__file__).with_name("entanglement.png")) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    main(*sys.argv[1:])
