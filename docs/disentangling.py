"""Train the generators of `docs/disentangling.md`, and measure all alike.

`python docs/disentangling.py [FOLDER]` takes some three hours of two cores; what FOLDER (`outputs/disentangling`) has
of it already is kept. `python docs/results.py` then writes the tables into the page.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from results import rows_of

import zsteer
from zsteer.app.composition import compose
from zsteer.evaluation.figures import means
from zsteer.evaluation.trials import FLIP
from zsteer.files import write_table

TARGETS = list(compose("compare").targets)
FACTORS = f"attributes=[{','.join([*TARGETS, 'hair_length'])}]"
PRESETS = {  # of train_gan, and of compare: how the generators that they train are controlled
    "unregularised": "one_number",
    "conditional": "told",
    "described": "one_number",
    "supervised_numbers": "one_number",
    "infogan": "one_number",
    "hessian_penalty": "one_number",
    "orojar": "one_number",
}
SEEDS = (0,)


def completed(folder: Path) -> bool:
    """Whether a run of this folder has come to its end."""
    status = folder / "status.json"
    return status.exists() and json.loads(status.read_text())["state"] == "completed"


def evaluated(generator: Path, what: str, *words: str) -> Path:
    """The folder of an evaluation."""
    if not completed(generator / what):
        zsteer.evaluate(f"what={what}", f"generator={generator}", *words, folder=generator / what)
    return generator / what


def figures_of(generator: Path, experiment: str) -> list[dict[str, Any]]:
    """A row for each contender but the first: what the judge sees it do, beside the generator's own figures."""
    scores = {}
    for what, words in {
        "generator": ["num_images=2000", "split=val"],
        "codes": [FACTORS],
    }.items():
        scores |= json.loads((evaluated(generator, what, *words) / "metrics.json").read_text())
    control = generator / "control"
    if not completed(control):
        zsteer.compare(f"experiment={experiment}", f"generator={generator}", folder=control)
    rows = rows_of(control / "methods.csv")
    (fid,) = (value for name, value in scores.items() if name.startswith("fid_judge/"))
    own = {"fid": fid, "rates": scores["num_within_factor_1.5"]}
    own |= {
        name: scores[name] for name in ("dci_disentanglement", "dci_disentanglement_interval", "mig", "mig_interval")
    }
    figures = ("versus", "attribute_dependency", "arrived", "success_rate_at_end", "preservation_rate_at_end")
    found = {figure: means(rows, FLIP, figure) for figure in figures}
    names = list(found["versus"])[1:]
    return [own | {"contender": name} | {figure: found[figure][name] for figure in figures} for name in names]


def main(folder: Path) -> None:
    """Train, measure, and write `disentangling.csv` and `conditions.csv`."""
    rows = []
    for seed in SEEDS:
        for preset, experiment in PRESETS.items():
            run = folder / f"{preset}-{seed}"
            if not completed(run):
                zsteer.train_gan(f"experiment={preset}", seed=seed, folder=run)
            rows += [{"preset": preset, "seed": seed} | row for row in figures_of(run, experiment)]
    write_table(Path(__file__).with_name("disentangling.csv"), pd.DataFrame(rows))
    told = evaluated(folder / "conditional-0", "conditions", "num_images=1000", FACTORS)
    shutil.copy(told / "attributes.csv", Path(__file__).with_name("conditions.csv"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "outputs/disentangling"))
