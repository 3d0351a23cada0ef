"""Train the generators of `docs/disentangling.md`, and measure all alike.

`python docs/disentangling.py presets [FOLDER]` takes eight hours of two cores, or three where they multiply bfloat16
(AMX); what FOLDER (`outputs/disentangling`) has of it already is kept. `python docs/results.py` then writes the tables
into the page. `python docs/disentangling.py noise [FOLDER]` takes two hours more, and draws `noise.png`.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from entanglement import COLOURS
from matplotlib.figure import Figure
from results import rows_of

import zsteer
from zsteer.app.composition import compose
from zsteer.evaluation.figures import means
from zsteer.evaluation.trials import FLIP
from zsteer.files import atomic_write, write_table

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
SEEDS = (0, 1)
LONGER = {  # images until which the conditional generator is trained on, and how much the classifier counts meanwhile
    90_000: "gan.regularizers.supervised.weight.end=0.1",
    110_000: "gan.regularizers.supervised.weight=0.3",
    128_000: "gan.regularizers.supervised.weight=1.0",
}
Z_DIMS = (8, 16, 40, 64, 128, 256)
PANELS = {  # of noise.png
    "fid": "FID (judge's features)",
    "dci_disentanglement": "DCI disentanglement",
    "attribute_dependency": "side effects at the flip, σ",
    "arrived": "share of faces that get there",
}


def completed(folder: Path) -> bool:
    """Whether a run of this folder has come to its end."""
    status = folder / "status.json"
    return status.exists() and json.loads(status.read_text())["state"] == "completed"


def evaluated(generator: Path, what: str, *words: str) -> Path:
    """The folder of an evaluation."""
    if not completed(generator / what):
        zsteer.evaluate(f"what={what}", f"generator={generator}", *words, folder=generator / what)
    return generator / what


def trained(run: Path, *words: str, seed: int = 0) -> Path:
    """The folder of a generator."""
    if not completed(run):
        zsteer.train_gan(*words, seed=seed, folder=run)
    return run


def figures_of(generator: Path, experiment: str, *words: str) -> list[dict[str, Any]]:
    """A row for each contender: what the judge sees it do, beside the generator's own figures."""
    scores = {}
    for what, own_words in {
        "generator": ["num_images=2000", "split=val"],
        "codes": [FACTORS],
    }.items():
        scores |= json.loads((evaluated(generator, what, *own_words) / "metrics.json").read_text())
    control = generator / experiment
    if not completed(control):
        zsteer.compare(f"experiment={experiment}", f"generator={generator}", *words, folder=control)
    rows = rows_of(control / "methods.csv")
    (fid,) = (value for name, value in scores.items() if name.startswith("fid_judge/"))
    own = {"fid": fid, "rates": scores["num_within_factor_1.5"]}
    own |= {
        name: scores[name] for name in ("dci_disentanglement", "dci_disentanglement_interval", "mig", "mig_interval")
    }
    figures = ("versus", "attribute_dependency", "arrived", "success_rate_at_end", "preservation_rate_at_end")
    found = {figure: means(rows, FLIP, figure) for figure in figures}
    return [own | {"contender": name} | {figure: found[figure][name] for figure in figures} for name in found["versus"]]


def presets(folder: Path) -> None:
    """Train, measure, and write `disentangling.csv` and `conditions.csv`."""
    rows = []
    for seed in SEEDS:
        for preset, experiment in PRESETS.items():
            run = trained(folder / f"{preset}-{seed}", f"experiment={preset}", seed=seed)
            rows += [{"preset": preset, "seed": seed} | row for row in figures_of(run, experiment)[1:]]
    write_table(Path(__file__).with_name("disentangling.csv"), pd.DataFrame(rows))
    run = folder / "conditional-0"
    for max_images, weight in LONGER.items():
        words = ("experiment=conditional", f"ckpt_path={run}", f"max_images={max_images}", weight)
        run = trained(folder / f"conditional-{max_images}", *words)
    told = evaluated(run, "conditions", "num_images=1000", FACTORS)
    shutil.copy(told / "attributes.csv", Path(__file__).with_name("conditions.csv"))


def noise(folder: Path) -> None:
    """Train one generator for each length of the noise, measure, and write `noise.csv` and `noise.png`."""
    rows = []
    for z_dim in Z_DIMS:
        run = folder / ("unregularised-0" if z_dim == 128 else f"noise-{z_dim}")
        trained(run, "experiment=unregularised", f"generator.network.z_dim={z_dim}")
        rows += [{"z_dim": z_dim} | row for row in figures_of(run, "default_against_published", "num_images=16")]
    table = pd.DataFrame(rows)
    write_table(Path(__file__).with_name("noise.csv"), table)
    figure = Figure(figsize=(12, 3.4), dpi=110, layout="constrained")
    for axis, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        if name in ("attribute_dependency", "arrived"):
            for contender, own in table.groupby("contender", sort=False):
                axis.plot(own["z_dim"], own[name], "o-", color=COLOURS[str(contender)], label=contender)
            axis.legend()
        else:  # the generator's own
            axis.plot(table["z_dim"], table[name], "ko-")
        axis.set(title=title, xlabel="numbers of the noise", xscale="log", ylim=(0, 1.1 * table[name].max()))
        axis.set_xticks(Z_DIMS, [str(z_dim) for z_dim in Z_DIMS])
        axis.minorticks_off()
    with atomic_write(Path(__file__).with_name("noise.png")) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    {"presets": presets, "noise": noise}[what](Path(rest[0] if rest else "outputs/disentangling"))
