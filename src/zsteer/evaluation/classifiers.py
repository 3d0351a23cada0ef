"""Score a classifier or a judge on labelled images."""

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from zsteer.classifier.metrics import AttributeMetrics, Figures, means
from zsteer.data.attributes import CELEBA, resolve
from zsteer.data.faces import FaceData, scale
from zsteer.evaluation.results import Scores, attribute_table
from zsteer.files import is_main_process
from zsteer.gan.fidelity import BATCH_SIZE
from zsteer.networks.inference import best_device, check_finite, frozen
from zsteer.networks.loading import load_classifier, trained_scales
from zsteer.networks.memory import in_parts


def score_classifier(cfg: DictConfig, folder: Path | None) -> Scores:
    """Figures of each attribute by the network that `what` names, their means, and what is known of the labels."""
    data = instantiate(cfg.data)
    if set(resolve(cfg[cfg.what].attributes)) <= set(CELEBA):  # numbers are standardised by the training images
        data.only = cfg.split
    figures = classifier_figures(cfg, data)
    table = attribute_table(figures)
    if data.label_quality:
        table["labels"] = table["attribute"].map(data.label_quality).fillna("")
    mean = means({figure: values for figure, values in figures.items() if figure != "rate"})
    scores = Scores({"what": cfg.what, "split": cfg.split, **mean}, table)
    if folder is not None and is_main_process():
        scores.write(folder)
    return scores


@torch.no_grad()
def classifier_figures(cfg: DictConfig, data: FaceData) -> Figures:
    """The figures of each attribute that the data have too (see `AttributeMetrics`), and how often they have it.

    A continuous output is standardised by the data that the network was trained on, as the config beside its weights
    has them; without one, by these.

    Raises:
        ValueError, FileNotFoundError: the network does not fit, or the data have none of its attributes.
    """
    section, device = cfg[cfg.what], best_device()
    classifier = load_classifier(section, cfg.what, data.example)
    network = frozen(classifier.network, torch.float32, device)
    shared = tuple(name for name in classifier.names if name in data.store.names)
    if not shared:
        raise ValueError(f"{cfg.what}.attributes and the data's targets have no name in common")
    data.attributes = shared
    seen = [classifier.names.index(name) for name in shared]
    scales = data.scales
    trained = trained_scales(section.get("checkpoint"), cfg.what)
    pairs = [(trained.get(name, scales[name]), scales[name]) if name in scales else ((0, 1), (0, 1)) for name in shared]
    slope = torch.tensor([own[1] / now[1] for own, now in pairs])
    shift = torch.tensor([(own[0] - now[0]) / now[1] for own, now in pairs])
    metrics, states = AttributeMetrics(shared, scales), []
    for images, targets in tqdm(data.split_batches(cfg.split, BATCH_SIZE), desc=f"Scoring the {cfg.what}"):
        outputs = in_parts(lambda part, x=images: network(scale(x[part].to(device))).cpu(), len(images), torch.cat)
        check_finite(cfg.what, outputs)
        outputs = outputs[:, seen]
        metrics.update(outputs * slope + shift, targets)
        states.append(targets)
    rates = dict(zip(shared, torch.cat(states).nanmean(dim=0).tolist(), strict=True))
    return {**metrics.compute(), "rate": {name: rate for name, rate in rates.items() if name not in scales}}
