"""Score networks: a classifier on labelled images, a generator by what a judge sees in its samples and in data.

Steering methods are scored in `comparison`.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Bool
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from zsteer import comparison, report
from zsteer.checkpoints import fingerprint
from zsteer.checks import NETWORKS
from zsteer.classifier import AttributeMetrics, Figures, means
from zsteer.data import FaceData, scale
from zsteer.directions import components, find_directions, mean_gradients
from zsteer.fidelity import (
    BATCH_SIZE,
    Embedding,
    enough,
    frechet_distance,
    inceptions_embedding,
    judges_embedding,
    samples_of,
)
from zsteer.files import beside, whole, write_json
from zsteer.loading import load_classifier, load_network, try_generator
from zsteer.networks import frozen, z_dim_of
from zsteer.pictures import grid_of, save_picture
from zsteer.reference import reference_logits, reference_noise
from zsteer.run import output_folder

SHOWN_DIRECTIONS = 10


def run(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate what a config names; write `metrics.json` and what else belongs to it, and print the figures."""
    folder = output_folder()
    evaluations = {"directions": directions_found, "methods": methods_compared}
    figures = {"what": cfg.what, **evaluations.get(cfg.what, attributes_scored)(cfg, folder)}
    write_json(folder / "metrics.json", figures)
    print(*(f"{name}: {value}\n" for name, value in figures.items()), sep="")
    return figures


def attributes_scored(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Figures of each attribute, as `attributes.csv`; their means."""
    data = instantiate(cfg.data)
    if cfg.what == "generator":
        (table, figures), notes = generator_scored(cfg, data), {}
    else:
        table, notes = classifier_figures(cfg, data), data.label_quality
        figures = means({figure: values for figure, values in table.items() if figure != "rate"})
    write_table(folder / "attributes.csv", table, notes)
    print((folder / "attributes.csv").read_text(), end="")
    return {"split": cfg.split, **figures}


def methods_compared(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The contenders of a config compared (see `comparison` and `report`); their mean ratios to the first."""
    data = instantiate(cfg.data)
    assert len(data.store)  # what is wrong with the data is said before anything is steered
    held = comparison.hold_trials(cfg, folder)
    networks = {role: load_network(cfg[role], role) for role in NETWORKS}
    generator, judge = (frozen(networks[role], torch.float32) for role in ("generator", "judge"))
    rows = comparison.figures(held, comparison.kernel_distances(held, data, cfg.split, generator, judge))
    fingerprints = {role: fingerprint(network) for role, network in networks.items()}
    report.write(folder, held, rows, fingerprints)
    print((folder / "methods.md").read_text(), folder / "report.html", sep="\n")
    ratios = {f"ratio_at_{level:g}_sigma": report.ratios(rows, level) for level in comparison.TABLE_LEVELS}
    return {"split": cfg.split, "num_images": cfg.num_images, "fingerprints": fingerprints, **ratios}


@torch.no_grad()
def classifier_figures(cfg: DictConfig, data: FaceData) -> Figures:
    """The figures of each attribute that the data have too (see `AttributeMetrics`), and how often they have it.

    A continuous output is standardised by the data that the network was trained on, as the config beside its weights
    has them; without one, by these.
    """
    classifier = load_classifier(cfg[cfg.what], cfg.what, data.example)
    network = frozen(classifier.network, torch.float32, device())
    shared = tuple(name for name in classifier.names if name in data.store.names)
    if not shared:
        raise ValueError(f"{cfg.what}.attributes and the data's targets have no name in common")
    data.attributes = shared
    seen = [classifier.names.index(name) for name in shared]
    scales = data.scales
    trained = {**scales, **beside(cfg[cfg.what].get("checkpoint")).get("figures", {}).get("scales", {})}
    pairs = [(trained[name], scales[name]) if name in scales else ((0, 1), (0, 1)) for name in shared]
    slope = torch.tensor([own[1] / now[1] for own, now in pairs])
    shift = torch.tensor([(own[0] - now[0]) / now[1] for own, now in pairs])
    metrics, total, count = AttributeMetrics(shared, scales), torch.zeros(len(shared)), 0
    for images, targets in tqdm(data.split_batches(cfg.split, BATCH_SIZE), desc=f"Scoring the {cfg.what}"):
        outputs = network(scale(images.to(device()))).cpu()[:, seen]
        metrics.update(outputs * slope + shift, targets)
        total, count = total + targets.sum(dim=0), count + len(images)
    rates = dict(zip(shared, (total / count).tolist(), strict=True))
    return {**metrics.compute(), "rate": {name: rate for name, rate in rates.items() if name not in scales}}


@torch.no_grad()
def generator_scored(cfg: DictConfig, data: FaceData) -> tuple[Figures, dict[str, Any]]:
    """How often the judge sees each attribute in samples and in the data; how close the samples are to the data.

    Beside each FID stands that of as many training images, its floor: what a perfect generator would have.
    """
    generator = load_network(cfg.generator, "generator")
    judge = load_classifier(cfg.judge, "judge", try_generator(generator))
    generator = frozen(generator, torch.float32, device())
    embeddings = [judges_embedding(judge.network, device())]
    if cfg.inception is not None:
        embeddings.append(inceptions_embedding(cfg.inception, device()))
    noise = torch.randn(cfg.num_images, z_dim_of(generator), generator=torch.Generator().manual_seed(cfg.seed))
    total = -(-len(noise) // BATCH_SIZE)
    floor = "test" if cfg.split == "train" else "train"
    table: Figures = {}
    figures: dict[str, Any] = {}
    for embedding in embeddings:
        samples = tqdm(samples_of(generator, noise.to(device())), desc="Looking at samples", total=total)
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
    within = sum(ratio is not None and 1 / 1.5 <= ratio <= 1.5 for ratio in ratios)
    return table, {"num_within_factor_1.5": within, **figures}


def _look(embedding: Embedding, data: FaceData, split: str, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Features and logits of the images of a split."""
    batches = tqdm(data.split_batches(split, BATCH_SIZE, most), desc=f"Looking at the {split} images")
    features, logits = embedding.of(images for images, _ in batches)
    return enough(features, split), logits


def attribute_rates(names: Sequence[str], generated: Bool[Tensor, "n k"], present: Bool[Tensor, "m k"]) -> Figures:
    """How often each attribute is seen in samples and in data, and the ratio; None where the data lack it."""
    rates = [states.double().mean(dim=0).tolist() for states in (generated, present)]
    ratios = [rate / of_data if of_data else None for rate, of_data in zip(*rates, strict=True)]
    columns = {"rate_generated": rates[0], "rate_data": rates[1], "ratio": ratios}
    return {figure: dict(zip(names, values, strict=True)) for figure, values in columns.items()}


@torch.no_grad()
def directions_found(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """What the judge sees a source's directions do; write `directions.csv`, `.png` and `.safetensors`.

    The file holds `directions` `[K, z_dim]` of the classifier's attributes, which `method.source` takes, and the
    `components` `[m, z_dim]` themselves, unit vectors. The table has the three attributes that each moves most, in the
    judge's σ for a step of length 1; the picture one face moved by −4 to 4 along the first components.
    """
    generator = load_network(cfg.generator, "generator")
    images = try_generator(generator)
    scorers = [load_classifier(cfg[role], role, images) for role in ("classifier", "judge")]
    references = reference_logits(generator, [scorer.network for scorer in scorers], device())
    noise = reference_noise(generator)
    found = find_directions(cfg.source, generator, references[0])
    parts = components(cfg.source, generator, noise)
    vectors = torch.nn.functional.normalize(found, dim=1) if parts is None else parts
    names = scorers[0].names if parts is None else [str(number) for number in range(len(vectors))]
    effects = vectors @ mean_gradients(noise, references[1]).T
    with whole(folder / "directions.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["direction", "first", "σ", "second", "σ", "third", "σ"])
        for name, effect in zip(names, effects, strict=True):
            largest = effect.abs().topk(3).indices.tolist()
            writer.writerow([name, *(cell for k in largest for cell in (scorers[1].names[k], f"{effect[k]:+.2f}"))])
    shown = vectors[:SHOWN_DIRECTIONS]
    moved = noise[0] + torch.linspace(-4, 4, 9)[None, :, None] * shown[:, None]
    save_picture(folder / "directions.png", grid_of(generator(moved.flatten(0, 1)), columns=9))
    with whole(folder / "directions.safetensors") as temporary:
        save_file({"directions": found.contiguous(), "components": vectors.contiguous()}, temporary)
    print((folder / "directions.csv").read_text(), folder / "directions.png", sep="")
    return {"source": cfg.source, "num_directions": len(vectors)}


def device() -> str:
    """Where to evaluate."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def write_table(path: Path, table: Figures, notes: Mapping[str, str]) -> None:
    """One row per attribute, one column per figure, and one for what is known of the labels, if anything is."""
    names = dict.fromkeys(name for column in table.values() for name in column)
    with whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["attribute", *table, *(["labels"] if notes else [])])
        for name in names:
            numbers = (_number(column.get(name)) for column in table.values())
            writer.writerow([name, *numbers, *([notes.get(name, "")] if notes else [])])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
