"""A steering job: networks and noise from its config, steering, figures, files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig
from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from zsteer import attributes, metrics, results
from zsteer.checks import EDITS
from zsteer.files import write_json
from zsteer.loading import Networks, load_networks
from zsteer.metrics import Scored
from zsteer.networks import frozen, z_dim_of
from zsteer.reference import reference_logits
from zsteer.run import output_folder
from zsteer.steering import TRAINER_SETTINGS, History, NonFiniteScore, Rows, steer

MAX_SAMPLES = 20_000  # that `where` looks through before it gives up
SAMPLE_BATCH = 200


@dataclass(frozen=True)
class Steered:
    """What a job did: its history, its settings and figures as in `metrics.json`, its picture.

    `side_effects` is the judge's mean |Δ| / σ of each attribute that the target does not entail.
    """

    history: History
    rows: Rows
    settings: dict[str, Any]
    figures: dict[str, float | None]
    side_effects: dict[str, float]
    image: Float[Tensor, "3 h w"]

    @property
    def picture(self) -> Image:
        """One column per image, time downwards, the last row final; below, the judge's probabilities (a factor's σ)."""
        return to_pil_image(self.image)

    def write(self, folder: Path) -> None:
        """Write every file of a run folder, `metrics.json` last."""
        results.save_history(folder / "history.safetensors", self.history)
        results.save_picture(folder / "steering.png", self.image)
        results.write_events(folder, self.history, self.rows, self.image, self.settings, self.figures)
        write_json(folder / "metrics.json", {**self.settings, **self.figures})

    def __str__(self) -> str:
        title = "{edit} {target} by {method}, penalty {penalty_weight:g}".format(**self.settings)
        return f"{title}\n{results.table(self.figures, self.side_effects)}"


def run(cfg: DictConfig) -> dict[str, Any]:
    """Steer as a checked config says, write the run folder's files, return what `metrics.json` holds."""
    folder = output_folder()
    try:
        steered = perform(cfg)
    except NonFiniteScore as error:
        if error.history.noise:
            results.save_history(folder / "history.safetensors", error.history)
        raise
    steered.write(folder)
    print(f"{steered}\n  {folder / 'steering.png'}")
    return {**steered.settings, **steered.figures}


def perform(cfg: DictConfig) -> Steered:
    """Steer as a checked config says and measure what that did.

    Raises:
        ValueError, FileNotFoundError: a network or the noise does not fit.
        NonFiniteScore: a score became NaN or infinite; its `history` has the steps before.
    """
    torch.manual_seed(cfg.seed)  # for networks that come without a checkpoint
    dtype = torch.float64 if cfg.trainer.precision == "64-true" else torch.float32
    networks = load_networks(cfg, dtype)
    noise = starting_noise(cfg, networks).to(dtype)
    method = instantiate(cfg.method)
    target = attributes.find(cfg.target, networks.classifier.names)
    rows = Rows.of_job(len(noise), target, EDITS[cfg.edit], float(cfg.penalty_weight), float(cfg.step_size))
    shown = range(0, cfg.num_steps, cfg.show_every)
    trainer = instantiate(cfg.trainer, **TRAINER_SETTINGS)
    history = steer(networks.generator, networks.classifier.network, noise, rows, method, cfg.num_steps, shown, trainer)
    settings = {
        "target": networks.classifier.names[target],
        "edit": cfg.edit,
        "method": method.name,
        "penalty_weight": float(cfg.penalty_weight),
        "num_steps": cfg.num_steps,
        "step_size": float(cfg.step_size),
        "num_images": len(noise),
        "seed": cfg.seed,
    }
    return measured(networks, rows, history, settings, trainer.strategy.root_device)


def measured(
    networks: Networks, rows: Rows, history: History, settings: dict[str, Any], device: torch.device
) -> Steered:
    """A job's figures and picture, from its history; the judge scores the first and the last images.

    Raises:
        ValueError: a classifier gives NaN or infinity.
    """
    target, sign = settings["target"], EDITS[settings["edit"]]
    scorers = [scorer for scorer in (networks.classifier, networks.judge) if scorer is not None]
    references = reference_logits(networks.generator, [scorer.network for scorer in scorers], device)
    for role, reference in zip(("classifier", "judge"), references, strict=False):
        _check_finite(role, reference)
    classifier = Scored(networks.classifier.names, history.logits[0], history.logits[-1], references[0])
    judge, captions, effects = None, [], {}
    if networks.judge is not None:
        ends = torch.cat([history.images[0], history.images[max(history.images)]])
        with torch.no_grad():
            logits = frozen(networks.judge.network, torch.float32, device)(ends.to(device)).cpu()
        _check_finite("judge", logits)
        before, after = logits.chunk(2)
        judge = Scored(networks.judge.names, before, after, references[1])
        column = attributes.find(target, judge.names)
        factor = networks.judge.names[column] in networks.judge.factors
        seen = [logits[:, column] if factor else logits[:, column].sigmoid() for logits in (before, after)]
        captions = [f"{start:.2f} to {end:.2f}" for start, end in zip(*seen, strict=True)]
        effects = metrics.side_effects(judge, metrics.others_of(target, judge.names))
    figures = metrics.figures(target, sign, history.noise[-1], classifier, judge)
    return Steered(history, rows, settings, figures, effects, results.picture(history, captions))


def _check_finite(role: str, logits: Tensor) -> None:
    if not logits.isfinite().all():
        remedy = "use another, or judge=none" if role == "judge" else "use another"
        raise ValueError(f"{role}.network gives NaN or infinite logits for this generator's images; {remedy}")


def starting_noise(cfg: DictConfig, networks: Networks) -> Float[Tensor, "n z_dim"]:
    """The noise that a config starts from: its file, or standard normal by its seed, filtered by `where`."""
    if cfg.noise is not None:
        return read_noise(Path(cfg.noise), z_dim_of(networks.generator))
    random = torch.Generator().manual_seed(cfg.seed)
    if not cfg.where:
        return torch.randn(cfg.num_images, z_dim_of(networks.generator), generator=random)
    return sample_where(networks, dict(cfg.where), cfg.num_images, random)


def read_noise(path: Path, z_dim: int) -> Float[Tensor, "n z_dim"]:
    """The tensor `noise` of a safetensors file.

    Raises:
        ValueError: not such a file, or its tensor is not `[n ≥ 1, z_dim]`, floating and finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if "noise" not in file.keys():
                raise ValueError(f"noise={path} has no tensor 'noise', only {', '.join(file.keys()) or 'none'}")
            noise = file.get_tensor("noise")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"noise={path} is not a readable .safetensors file ({error})") from error
    if noise.ndim != 2 or noise.shape[1] != z_dim or len(noise) == 0:
        raise ValueError(
            f"noise={path} has shape {list(noise.shape)}; it must be [n, {z_dim}], z_dim being the generator's"
        )
    if not noise.is_floating_point():
        raise ValueError(f"noise={path} is {str(noise.dtype).removeprefix('torch.')}; it must be a floating type")
    if not noise.isfinite().all():
        raise ValueError(f"noise={path} has NaN or infinite values")
    return noise


@torch.no_grad()
def sample_where(
    networks: Networks, where: Mapping[str, bool], num_images: int, random: torch.Generator
) -> Float[Tensor, "n z_dim"]:
    """Rejection sampling: standard normal noise whose images the classifier sees as `where` says.

    Raises:
        ValueError: fewer than `num_images` among 20,000 samples.
    """
    generator, classifier = (frozen(net, torch.float32) for net in (networks.generator, networks.classifier.network))
    columns = [attributes.find(name, networks.classifier.names, key="where") for name in where]
    wanted = torch.tensor(list(where.values()))
    accepted: list[Tensor] = []
    for _ in tqdm(range(MAX_SAMPLES // SAMPLE_BATCH), desc="Looking for samples", unit_scale=SAMPLE_BATCH, leave=False):
        noise = torch.randn(SAMPLE_BATCH, z_dim_of(networks.generator), generator=random)
        fits = ((classifier(generator(noise))[:, columns] > 0) == wanted).all(dim=1)
        accepted += noise[fits]
        if len(accepted) >= num_images:
            return torch.stack(accepted[:num_images])
    raise ValueError(
        f"where={dict(where)} fits only {len(accepted)} of {MAX_SAMPLES} samples, fewer than num_images={num_images};"
        f" ask for fewer conditions or images"
    )
