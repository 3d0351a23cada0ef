"""Score a generator: how close its samples are to data, and how often a judge sees each attribute in both."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Bool
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from zsteer.classifier.metrics import Figures
from zsteer.data.faces import FaceData
from zsteer.evaluation.results import Scores, attribute_table
from zsteer.files import is_main_process
from zsteer.gan.fidelity import (
    BATCH_SIZE,
    NUM_NEIGHBOURS,
    Embedding,
    frechet_distance,
    inception_embedding,
    judge_embedding,
    require_enough,
    samples_of,
)
from zsteer.networks.inference import best_device, frozen, noise_of
from zsteer.networks.loading import load_classifier, load_network, try_generator
from zsteer.settings import MAX_SEED, whole_number

RATE_FACTOR = 1.5  # an attribute's rate in samples and in data agree up to this factor


def score_generator(cfg: DictConfig, folder: Path | None) -> Scores:
    """FID and the like of a generator, and each attribute's rate in its samples and in the data."""
    whole_number(cfg.num_images, "num_images", NUM_NEIGHBOURS + 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    table, figures = generator_figures(cfg, instantiate(cfg.data))
    scores = Scores({"what": cfg.what, "split": cfg.split, **figures}, attribute_table(table))
    if folder is not None and is_main_process():
        scores.write(folder)
    return scores


@torch.no_grad()
def generator_figures(cfg: DictConfig, data: FaceData) -> tuple[Figures, dict[str, Any]]:
    """How often the judge sees each attribute in samples and in the data; how close the samples are to the data.

    Beside each FID stands that of as many training images, its floor: what a perfect generator would have.
    """
    device = best_device()
    generator = load_network(cfg.generator, "generator")
    images = try_generator(generator)
    (height, width), (of_data, across) = images.shape[2:], data.example.shape[2:]
    if (height, width) != (of_data, across):
        raise ValueError(
            f"generator.network makes images of {height}×{width} pixels, and the data have {of_data}×{across}; name "
            "other data, or set data.size"
        )
    judge = load_classifier(cfg.judge, "judge", images)
    generator = frozen(generator, torch.float32, device)
    embeddings = [judge_embedding(judge.network, device)]
    if cfg.inception is not None:
        embeddings.append(inception_embedding(cfg.inception, device))
    noise = noise_of(generator, cfg.num_images, cfg.seed)
    total = math.ceil(len(noise) / BATCH_SIZE)
    floor = "test" if cfg.split == "train" else "train"
    table: Figures = {}
    figures: dict[str, Any] = {}
    for embedding in embeddings:
        samples = tqdm(samples_of(generator, noise.to(device)), desc="Looking at samples", total=total)
        fake, generated = embedding.of(samples)
        real, present = _look(embedding, data, cfg.split)
        figures |= embedding.figures(real, fake, data.store.protocol, cfg.split)
        if cfg.split != "all":  # of which the other splits are a part
            others, _ = _look(embedding, data, floor, most=cfg.num_images)
            place = embedding.place(data.store.protocol, cfg.split, len(others))
            figures[f"fid_of_{floor}_{place}"] = frechet_distance(real, others)
        if not table:  # the judge's, which comes first and alone sees attributes
            table = attribute_rates(judge.names, generated > 0, present > 0)
            errors = (generated > 0).double().mean(dim=0) - (present > 0).double().mean(dim=0)
            figures["attribute_rate_error"] = errors.abs().mean().item()
    ratios = table["ratio"].values()
    within = sum(ratio is not None and 1 / RATE_FACTOR <= ratio <= RATE_FACTOR for ratio in ratios)
    return table, {f"num_within_factor_{RATE_FACTOR}": within, **figures}


def _look(embedding: Embedding, data: FaceData, split: str, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Features and logits of the images of a split."""
    batches = tqdm(data.split_batches(split, BATCH_SIZE, most), desc=f"Looking at the {split} images")
    features, logits = embedding.of(images for images, _ in batches)
    return require_enough(features, split), logits


def attribute_rates(names: Sequence[str], generated: Bool[Tensor, "n k"], present: Bool[Tensor, "m k"]) -> Figures:
    """How often each attribute is seen in samples and in data, and the ratio; None where the data lack it."""
    rates = [states.double().mean(dim=0).tolist() for states in (generated, present)]
    ratios = [rate / of_data if of_data else None for rate, of_data in zip(*rates, strict=True)]
    columns = {"rate_generated": rates[0], "rate_data": rates[1], "ratio": ratios}
    return {figure: dict(zip(names, values, strict=True)) for figure, values in columns.items()}
