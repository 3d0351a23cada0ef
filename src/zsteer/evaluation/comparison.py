"""Compare steering methods at equal judged gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from zsteer.evaluation import report
from zsteer.evaluation.codes import NUM_STRIPS, activeness_of, effects_of, strips
from zsteer.evaluation.figures import Comparison, Row, figures, kernel_distances, means, seconded
from zsteer.evaluation.trajectories import Scorer
from zsteer.evaluation.trials import TABLE_LEVELS, run_trials
from zsteer.files import is_main_process, write_json
from zsteer.networks.fingerprints import fingerprint
from zsteer.networks.inference import frozen
from zsteer.networks.loading import load_network
from zsteer.pictures import Png
from zsteer.results import Result
from zsteer.settings import NETWORKS
from zsteer.steering.methods import method_of
from zsteer.steering.reference import reference_noise

NUM_BASES = 4  # samples whose noise is moved along each of its numbers


@dataclass(frozen=True, repr=False)
class Compared(Result):
    """Contenders compared.

    Args:
        metrics: as in `metrics.json`: each contender's mean ratio to the first.
        comparison: the trials.
        rows: figures, a row for each level, contender and target; `pandas.DataFrame(rows)` is `methods.csv`.
        fingerprints: of the networks, by their roles.
        codes: what the most active numbers of the generator's noise do.
    """

    metrics: dict[str, Any]
    comparison: Comparison
    rows: Sequence[Row]
    fingerprints: dict[str, str]
    codes: Png

    def write(self, folder: Path) -> None:
        """Write tables, pictures and the page (see `report.write`), and `metrics.json`."""
        report.write(folder, self.comparison, self.rows, self.fingerprints, self.codes)
        write_json(folder / "metrics.json", self.metrics)

    def report(self, folder: Path) -> str:
        """The tables, and where the page is."""
        return f"{self}\n  {folder / 'report.html'}"

    def __str__(self) -> str:
        return report.tables(self.rows, self.fingerprints)


def compare(cfg: DictConfig, jobs: Mapping[str, Sequence[DictConfig]], folder: Path | None) -> Compared:
    """Compare contenders.

    Args:
        jobs: for each contender the checked configs of `steer`, one for each target.
        folder: keeps each trial as soon as it has ended, and has the files at the end; null for none.

    Raises:
        ValueError, FileNotFoundError: the data, a setting of a contender or a network does not fit.
    """
    for own in jobs.values():
        method_of(own[0].method)  # what is wrong with a contender is said before the first is steered
    data = instantiate(cfg.data)
    data.only = cfg.split
    assert len(data.store)  # what is wrong with the data is said before anything is steered
    trials = run_trials(cfg, jobs, data, folder)
    comparison = Comparison.of(trials, jobs)
    roles = [*NETWORKS, *(() if cfg.second_judge is None else ("second_judge",))]
    networks = {role: load_network(cfg[role], role) for role in roles}
    generator, judge = (frozen(networks[role], torch.float32) for role in ("generator", "judge"))
    rows = figures(comparison, kernel_distances(comparison, data, cfg.split, generator, judge))
    if cfg.second_judge is not None:
        rows = seconded(rows, figures(Comparison.of(trials, jobs, "second_judge"), {}))
    fingerprints = {role: fingerprint(network) for role, network in networks.items()}
    names = {level: level if isinstance(level, str) else f"{level:g}_sigma" for level in TABLE_LEVELS}
    ratios = {f"ratio_at_{name}": means(rows, level) for level, name in names.items()}
    metrics = {
        "what": "methods",
        "split": cfg.split,
        "num_images": cfg.num_images,
        "fingerprints": fingerprints,
        **ratios,
    }
    codes = strips_of_codes(generator, trials.scorers["judge"])
    compared = Compared(metrics, comparison, rows, fingerprints, codes)
    if folder is not None and is_main_process():
        compared.write(folder)
    return compared


def strips_of_codes(generator: nn.Module, scorer: Scorer) -> Png:
    """What the most active numbers of a generator's noise do in a judge's eyes."""
    generator, judge = (
        frozen(network, torch.float32, scorer.judge.device) for network in (generator, scorer.judge.network)
    )
    bases = reference_noise(generator)[:NUM_BASES].to(scorer.judge.device)
    # Which numbers are the most active can be told from the ends of their ways, and two faces.
    shown = activeness_of(generator, bases[:2], num_frames=2).argsort(descending=True)[:NUM_STRIPS].tolist()
    effects = effects_of(generator, judge, bases, scorer.sigma, shown)
    return strips(generator, bases[:1], shown, effects, scorer.judge.names)
