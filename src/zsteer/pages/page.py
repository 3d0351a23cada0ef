"""One page with generator and judge inside: what it needs is measured here, what it does stands in page.html."""

import base64
import gzip
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from zsteer.data import attributes
from zsteer.files import atomic_write, is_main_process, write_json
from zsteer.networks.conditional import ConditionalGenerator
from zsteer.networks.inference import best_device, check_finite, images_of, noise_of, num_free, z_dim_of
from zsteer.networks.loading import Networks, load_networks
from zsteer.pages.graphs import graph_of
from zsteer.pages.runtime import NEWEST, Runtime, read_runtime
from zsteer.results import Result
from zsteer.steering.directions import find_directions
from zsteer.steering.methods import held
from zsteer.steering.metrics import sigma_of
from zsteer.steering.reference import reference_logits

NUM_FACES = 8
FAMILIAR = ("Smiling", "Eyeglasses", "Bangs", "Wearing_Hat", "Male", "Young")  # which have a slider at first
NUM_TRIED = 32  # samples on which the exported networks are compared with PyTorch's
REACH = 0.5  # of a slider, as a share of √z_dim, the noise's typical length: how far `method=direction` goes
EXTENT = 0.99  # of the judge's logits that bars have room for
TEMPLATE = Path(__file__).parent / "page.html"

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Page(Result):
    """The page as HTML, and where it was written, if it was."""

    html: str
    metrics: dict[str, Any]
    path: Path | None = None

    def write(self, folder: Path) -> None:
        """Write `page.html`, unless it is somewhere else already, and `metrics.json`."""
        if self.path is None:
            self.write_page(folder / "page.html")
        write_json(folder / "metrics.json", self.metrics)

    def write_page(self, path: Path) -> None:
        """Write the page."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.html, encoding="utf-8")

    def report(self, folder: Path) -> str:
        """How large and how exact the page is, and where."""
        return f"{self}\n  {self.path or folder / 'page.html'}"

    def __str__(self) -> str:
        figures = self.metrics
        return (
            f"a page of {figures['megabytes']:.1f} MB; its images differ by {figures['image_difference']:.1g} at most "
            f"from PyTorch's, its logits by {figures['logit_difference']:.1g}"
        )


def export(cfg: DictConfig, folder: Path | None) -> Page:
    """The page of a checked config, written to `page` or into the folder.

    Raises:
        ValueError, FileNotFoundError: a network or the runtime does not fit.
    """
    runtime = read_runtime(Path(cfg.runtime))
    if not runtime.is_tried:
        log.warning("runtime: pages were tried with versions up to %s.%s, not with %s", *NEWEST, runtime.version)
    page = page_of(load_networks(cfg), runtime, cfg)
    if cfg.page is not None:
        page = Page(page.html, page.metrics, Path(cfg.page))
    if is_main_process():
        if page.path is not None:
            page.write_page(page.path)
        if folder is not None:
            page.write(folder)
    return page


@torch.no_grad()
def page_of(networks: Networks, runtime: Runtime, cfg: DictConfig) -> Page:
    """The page of some networks: `sliders`, `penalty_weight` and `seed` are the config's.

    Raises:
        ValueError: a network cannot be exported, or gives NaN or infinity.
    """
    generator, classifier, judge = networks.generator, networks.classifier, networks.judge
    assert judge is not None
    noise = noise_of(generator, NUM_TRIED, cfg.seed)
    images = images_of(generator, noise)
    check_finite("generator", images)
    graphs = {"generator": graph_of(generator, noise, "generator"), "judge": graph_of(judge.network, images, "judge")}
    references = reference_logits(generator, [classifier.network, judge.network], best_device())
    for role, reference in zip(("classifier", "judge"), references, strict=True):
        check_finite(role, reference)
    directions = find_directions("gradient", generator, references[0])
    along = held_directions(directions, classifier.names, cfg.penalty_weight)
    sigma = sigma_of(references[1])
    data = {
        "z_dim": z_dim_of(generator),
        "free": num_free(generator),
        "reach": REACH * math.sqrt(num_free(generator)),
        "faces": _numbers(noise_of(generator, NUM_FACES, cfg.seed)),
        "attributes": list(classifier.names),
        "sliders": first_sliders(cfg.sliders, classifier.names, (along * directions).sum(dim=1)),
        "directions": _numbers(along),
        "told": told(generator),
        "judge": list(judge.names),
        "sigma": _numbers(sigma),
        "extent": (references[1] / sigma).abs().quantile(EXTENT).item(),
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        data=data,
        packed={
            "script": _packed(runtime.script),
            "wasm": _packed(runtime.wasm),
            **{role: _packed(graph.data) for role, graph in graphs.items()},
        },
        seed=cfg.seed,
        height=images.shape[2],
        width=images.shape[3],
        of_labels=not judge.factors,
        version=runtime.version,
    )
    return Page(
        html,
        {
            "megabytes": len(html.encode()) / 1e6,
            "image_difference": graphs["generator"].difference,
            "logit_difference": graphs["judge"].difference,
            **{f"{role}_weights": graph.weights for role, graph in graphs.items()},
            "runtime": runtime.version,
            "penalty_weight": float(cfg.penalty_weight),
            "seed": cfg.seed,
        },
    )


def held_directions(
    directions: Float[Tensor, "k z_dim"], names: Sequence[str], penalty_weight: int | float
) -> Float[Tensor, "k z_dim"]:
    """Each attribute's direction as a unit vector, as `method=direction` takes it: the others are held in place."""
    kept = torch.tensor([[other in attributes.others_of(name, names) for other in names] for name in names])
    return held(directions, directions, kept, directions.new_full([len(names)], penalty_weight))


def first_sliders(wanted: Sequence[str] | None, names: Sequence[str], rises: Float[Tensor, " k"]) -> list[int]:
    """The numbers of the attributes that have a slider at first: those wanted, familiar ones, or what moves most.

    Args:
        rises: of each attribute along its own slider.
    """
    known = [name for name in FAMILIAR if name in names] if wanted is None else wanted
    found = [attributes.find(name, names, key="sliders") for name in known]
    return found if found or wanted is not None else rises.topk(min(len(FAMILIAR), len(names))).indices.tolist()


def told(generator: torch.nn.Module) -> list[dict[str, Any]]:
    """What a conditional generator is told: for each the range of its number, and how that is said in its own units."""
    if not isinstance(generator, ConditionalGenerator):
        return []
    least, most = generator.bounds.tolist()
    means, deviations = generator.scales.tolist()
    numbers = zip(generator.condition, least, most, means, deviations, strict=True)
    return [dict(zip(("name", "least", "most", "mean", "deviation"), own, strict=True)) for own in numbers]


def _numbers(tensor: Tensor) -> str:
    """A tensor as base64 of its numbers in float32."""
    return base64.b64encode(tensor.float().contiguous().numpy().tobytes()).decode()


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()
