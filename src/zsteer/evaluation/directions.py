"""Name a generator's directions by what a judge sees them do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from PIL.Image import Image
from safetensors.torch import save_file
from torch import Tensor

from zsteer.files import atomic_write, is_main_process, write_json, write_table
from zsteer.networks.inference import best_device, num_free
from zsteer.networks.loading import load_classifier, load_network, try_generator
from zsteer.pictures import grid_of, pillow, save_picture
from zsteer.results import Result
from zsteer.steering.directions import check_source, components, find_directions, mean_gradients
from zsteer.steering.reference import reference_logits, reference_noise

NUM_SHOWN = 10
RANKS = ("first", "second", "third")


@dataclass(frozen=True, repr=False)
class NamedDirections(Result):
    """Directions of a source, and what each does in the judge's eyes.

    Args:
        table: for each component the three attributes that it moves most, in the judge's σ for a step of length 1.
        directions: `[K, z_dim]` of the classifier's attributes, which `method.source` takes.
        components: `[m, z_dim]`, unit vectors.
        image: one face moved by −4 to 4 along the first components, in [0, 1].
    """

    metrics: dict[str, Any]
    table: pd.DataFrame
    directions: Float[Tensor, "k z_dim"]
    components: Float[Tensor, "m z_dim"]
    image: Float[Tensor, "3 h w"]

    @property
    def picture(self) -> Image:
        """One face moved along the first components, a row each."""
        return pillow(self.image)

    def write(self, folder: Path) -> None:
        """Write `directions.csv`, `.png` and `.safetensors`, and `metrics.json`."""
        write_table(folder / "directions.csv", self.table)
        save_picture(folder / "directions.png", self.image)
        with atomic_write(folder / "directions.safetensors") as temporary:
            tensors = {"directions": self.directions, "components": self.components}
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        write_json(folder / "metrics.json", self.metrics)

    def report(self, folder: Path) -> str:
        """The table, and where the picture is."""
        return f"{self}  {folder / 'directions.png'}"

    def __str__(self) -> str:
        return self.table.to_csv(index=False)


@torch.no_grad()
def name_directions(cfg: DictConfig, folder: Path | None) -> NamedDirections:
    """What the judge sees the directions of `source` do.

    Raises:
        ValueError, FileNotFoundError: an unknown source, or a network does not fit.
    """
    check_source(cfg.source, "source")
    generator = load_network(cfg.generator, "generator")
    images = try_generator(generator)
    classifier, judge = (load_classifier(cfg[role], role, images) for role in ("classifier", "judge"))
    references = reference_logits(generator, [classifier.network, judge.network], best_device())
    noise, free = reference_noise(generator), num_free(generator)
    found = find_directions(cfg.source, generator, references[0], key="source")
    own = components(cfg.source, generator)
    vectors = torch.nn.functional.normalize(found, dim=1) if own is None else own
    names = classifier.names if own is None else [str(number) for number in range(len(vectors))]
    effects = vectors @ mean_gradients(noise[:, :free], references[1]).T
    ranks = RANKS[: len(judge.names)]
    rows = []
    for name, effect in zip(names, effects, strict=True):
        largest = effect.abs().topk(len(ranks)).indices.tolist()
        rows.append([name, *(cell for column in largest for cell in (judge.names[column], f"{effect[column]:+.2f}"))])
    table = pd.DataFrame(rows, columns=["direction", *(title for rank in ranks for title in (rank, "σ"))])
    shown = vectors[:NUM_SHOWN]
    moved = noise[0].repeat(len(shown), 9, 1)
    moved[:, :, :free] += torch.linspace(-4, 4, 9)[None, :, None] * shown[:, None]
    image = grid_of(generator(moved.flatten(0, 1)), columns=9)
    metrics = {"what": "directions", "source": cfg.source, "num_directions": len(vectors)}
    named = NamedDirections(metrics, table, found, vectors, image)
    if folder is not None and is_main_process():
        named.write(folder)
    return named
