"""How far a conditional generator draws what it is told, in the eyes of a judge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.evaluation.codes import logits_of
from zsteer.evaluation.results import Scores
from zsteer.files import is_main_process
from zsteer.networks.conditional import ConditionalGenerator
from zsteer.networks.inference import best_device, check_finite, frozen, noise_of, num_free
from zsteer.networks.loading import NamedClassifier, load_classifier, load_network, try_generator
from zsteer.settings import MAX_SEED, whole_number
from zsteer.statistics import mean_known
from zsteer.steering.metrics import Scored, correlation, preservation_rate

FIGURES = ("met", "met_with", "met_without", "changed", "kept", "correlation")


def score_conditions(cfg: DictConfig, folder: Path | None) -> Scores:
    """Samples that are told an attribute, and told the contrary, as a judge sees them.

    The table has a row for each entry of the condition. Of a label: `met_with` and `met_without`, the shares of samples
    that have it, or lack it, as they were told; `met`, the mean of both; `changed`, the share of samples that end in
    the other state when their entry alone changes; `kept`, the rate at which the judge's other labels keep theirs then.
    Of a factor: `correlation`, of what samples were told with what the judge sees.

    Raises:
        ValueError, FileNotFoundError: a network does not fit, the generator is told nothing, or not one of
            `attributes`; or the judge does not know what it is told.
    """
    num = whole_number(cfg.num_images, "num_images", 10)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    generator = load_network(cfg.generator, "generator")
    images = try_generator(generator)
    if not isinstance(generator, ConditionalGenerator):
        raise ValueError(f"what={cfg.what} needs a generator that was trained with gan.condition")
    condition = generator.condition
    wanted = condition if cfg.attributes is None else cfg.attributes
    entries = [attributes.find(name, condition, "attributes", "what the generator is told") for name in wanted]
    factor = cfg.judge.regressor.attributes[0] if cfg.judge.get("regressor") else None  # joins all of them
    judge = load_classifier(cfg.judge, "judge", images, factor)
    rows = obedience(generator, judge, entries, num, cfg.seed)
    means = {name: mean_known(row.get(name) for row in rows) for name in ("met", "changed", "kept", "correlation")}
    metrics = {"what": cfg.what, "num_images": num, "seed": cfg.seed, "num_entries": len(rows), **means}
    found = Scores(metrics, pd.DataFrame(rows, columns=["attribute", *FIGURES]))
    if folder is not None and is_main_process():
        found.write(folder)
    return found


@torch.no_grad()
def obedience(
    generator: ConditionalGenerator, judge: NamedClassifier, entries: Sequence[int], num: int, seed: int
) -> list[dict[str, Any]]:
    """A row for each of some entries of the condition, of `num` samples each (see `score_conditions`).

    Raises:
        ValueError: the judge does not know what the generator is told, or gives NaN.
    """
    names = [generator.condition[entry] for entry in entries]
    columns = [attributes.find(name, judge.names, "gan.condition", "the judge") for name in names]
    device = best_device()
    drawing, network = (frozen(each, torch.float32, device) for each in (generator, judge.network))
    noise = noise_of(generator, num, seed)
    before = logits_of(drawing, network, noise)
    check_finite("judge", before)
    rows: list[dict[str, Any]] = []
    shown = tqdm(list(zip(entries, names, columns, strict=True)), "Telling each attribute", leave=False)
    for entry, name, column in shown:
        place = num_free(generator) + entry
        if not generator.labels[entry]:
            rows.append({"attribute": name, "correlation": correlation(noise[:, place], before[:, column])})
            continue
        seen_with, seen_without = (
            logits_of(drawing, network, noise_of(generator, num, seed, {name: value}))[:, column] > 0
            for value in (True, False)
        )
        met_with, met_without = share(seen_with), share(~seen_without)
        other = noise.clone()
        other[:, place] = 1 - other[:, place]
        scored = Scored(judge.names, before, logits_of(drawing, network, other), before)
        others = attributes.others_of(judge.names[column], judge.names)
        labels = [other for other in others if other not in judge.factors]
        rows.append(
            {
                "attribute": name,
                "met": (met_with + met_without) / 2,
                "met_with": met_with,
                "met_without": met_without,
                "changed": share((scored.after[:, column] > 0) == (other[:, place] > 0.5)),
                "kept": preservation_rate(scored, labels),
            }
        )
    return rows


def share(states: Bool[Tensor, " n"]) -> float:
    """How many of them hold."""
    return states.double().mean().item()
