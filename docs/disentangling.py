"""Train the generators of `docs/disentangling.md`, measure all alike, and draw its figure.

`python docs/disentangling.py [FOLDER]` takes about four hours of two cores; what FOLDER (`outputs/disentangling`) has
of it already is kept. `python docs/results.py` then writes the table into the page.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from results import rows_of

import zsteer
from zsteer.app.composition import compose
from zsteer.evaluation.figures import means
from zsteer.evaluation.trials import FLIP
from zsteer.files import atomic_write, write_table

TARGETS = list(compose("compare").targets)
FACTORS = [*TARGETS, "hair_length"]
PRESETS = {  # of train_gan, and of compare: how the generators that they train are controlled
    "unregularised": "one_number",
    "conditional": "told",
    "supervised_numbers": "one_number",
    "infogan": "one_number",
    "hessian_penalty": "one_number",
    "orojar": "one_number",
}
SEEDS = (0, 1)
LENGTHS = (8, 16, 40, 64, 128, 256)  # of the noise
NUM_FEATURES = 46  # that the faces are drawn from and the judge sees: CelebA's forty labels, and six factors


def completed(folder: Path) -> bool:
    """Whether a run of this folder has come to its end."""
    status = folder / "status.json"
    return status.exists() and json.loads(status.read_text())["state"] == "completed"


def figures_of(generator: Path, experiment: str) -> list[dict[str, Any]]:
    """A row for each contender but the first: what the judge sees it do, beside the generator's own figures."""
    scores = {}
    for what, words in {
        "generator": ["num_images=2000", "split=val"],
        "codes": [f"attributes=[{','.join(FACTORS)}]"],
    }.items():
        if not completed(generator / what):
            zsteer.evaluate(f"what={what}", f"generator={generator}", *words, folder=generator / what)
        scores |= json.loads((generator / what / "metrics.json").read_text())
    control = generator / "control"
    if not completed(control):
        zsteer.compare(f"experiment={experiment}", f"generator={generator}", folder=control)
    rows = rows_of(control / "methods.csv")
    own = {name: scores[name] for name in ("fid_judge", "num_within_factor_1.5")}
    own |= {name: scores[name] for name in ("dci_disentanglement", "dci_disentanglement_interval")}
    figures = ("versus", "attribute_dependency", "arrived", "success_rate_at_end", "preservation_rate_at_end")
    found = {figure: means(rows, FLIP, figure) for figure in figures}
    names = list(found["versus"])[1:]
    return [own | {"contender": name} | {figure: found[figure][name] for figure in figures} for name in names]


def main(folder: Path) -> None:
    """Train, measure, and write `disentangling.csv`, `noise_lengths.csv` and `noise_lengths.png`."""
    rows = []
    for seed in SEEDS:
        for preset, experiment in PRESETS.items():
            run = folder / f"{preset}-{seed}"
            if not completed(run):
                zsteer.train_gan(f"experiment={preset}", seed=seed, folder=run)
            rows += [{"preset": preset, "seed": seed} | row for row in figures_of(run, experiment)]
    here = Path(__file__).parent
    write_table(here / "disentangling.csv", pd.DataFrame(rows))
    rows = []
    for z_dim in LENGTHS:
        run = folder / f"length-{z_dim}"
        if not completed(run):
            zsteer.train_gan("experiment=unregularised", f"generator.network.z_dim={z_dim}", folder=run)
        rows += [{"z_dim": z_dim} | row for row in figures_of(run, "default_against_published")]
    write_table(here / "noise_lengths.csv", pd.DataFrame(rows))
    draw(pd.DataFrame(rows), here / "noise_lengths.png")


def draw(table: pd.DataFrame, path: Path) -> None:
    """Side effects at the flip, disentanglement and FID over the noise's length, that of the features marked."""
    figure = Figure(figsize=(11, 3.4), dpi=110, layout="constrained")
    panels = {
        "side effects at the flip, σ": ["attribute_dependency"],
        "DCI disentanglement": ["dci_disentanglement"],
        "FID (the judge's features)": ["fid_judge"],
    }
    for axis, (title, (column,)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axis.plot(table["z_dim"], table[column], "o-", color="tab:blue")
        if column == "dci_disentanglement":
            half = table["dci_disentanglement_interval"]
            axis.fill_between(table["z_dim"], table[column] - half, table[column] + half, alpha=0.2, color="tab:blue")
        axis.axvline(NUM_FEATURES, color="grey", ls=":", label=f"{NUM_FEATURES} features")
        axis.set_xscale("log", base=2)
        axis.set_xticks(table["z_dim"], [str(z_dim) for z_dim in table["z_dim"]])
        axis.set_ylim(bottom=0)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("numbers of noise")
    figure.axes[0].legend(fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "outputs/disentangling"))
