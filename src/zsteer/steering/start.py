"""Where steering starts: noise from a file, or random noise whose images have or lack some attributes."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.files import is_bundled
from zsteer.networks.conditional import ConditionalGenerator
from zsteer.networks.inference import noise_of, require_unconditioned, z_dim_of
from zsteer.networks.loading import Networks

log = logging.getLogger(__name__)

MAX_SAMPLES = 20_000  # that `where` looks through before it gives up
SAMPLE_BATCH = 200  # that are drawn at a time
LOOKED_AT = 25  # of them at once, until there are enough


def starting_noise(cfg: DictConfig, networks: Networks) -> Float[Tensor, "n z_dim"]:
    """The noise that a config starts from: its file, or the generator's prior by its seed, filtered by `where`.

    A conditional generator's has the values of `condition`, in a file's noise too.

    `where=auto` is for the bundled networks: from images that lack what is wanted, as far as there are enough of them.

    Raises:
        ValueError: the file's noise does not fit, or `where` fits too few samples.
    """
    if cfg.noise is not None:
        return conditioned_noise(networks.generator, cfg.noise, cfg.condition)
    where = lacking(cfg, networks) if cfg.where == "auto" else dict(cfg.where or {})
    try:
        if where:
            random = torch.Generator().manual_seed(cfg.seed)
            return sample_where(networks, where, cfg.num_images, random, cfg.condition)
    except ValueError as error:
        if cfg.where != "auto":
            raise
        log.warning("%s; starting from any", error)
    return noise_of(networks.generator, cfg.num_images, cfg.seed, cfg.condition)


def conditioned_noise(generator: nn.Module, path: str, condition: Mapping[str, Any] | None) -> Float[Tensor, "n z_dim"]:
    """The noise of a file, with some of the generator's condition changed.

    Raises:
        ValueError: the noise or the condition does not fit.
    """
    noise = read_noise(Path(path), z_dim_of(generator))
    if not isinstance(generator, ConditionalGenerator):
        require_unconditioned(condition)
        return noise
    return generator.put(noise, generator.values(condition or {}))


def lacking(cfg: DictConfig, networks: Networks) -> dict[str, bool]:
    """That an image has not yet what is wanted, in the words of `where`; nothing of factors and others' networks."""
    bundled = all(is_bundled(cfg[role].get("checkpoint")) for role in ("generator", "classifier"))
    name = networks.classifier.names[attributes.find(cfg.target, networks.classifier.names)]
    return {name: cfg.edit != "add"} if bundled and name not in networks.classifier.factors else {}


def read_noise(path: Path, z_dim: int) -> Float[Tensor, "n z_dim"]:
    """The tensor `noise` of a safetensors file; of a run's history, which has one for each step, the last.

    Raises:
        ValueError: not such a file, or its tensor is not `[n ≥ 1, z_dim]`, floating and finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if "noise" not in file.keys():
                raise ValueError(f"noise={path} has no tensor 'noise', only {', '.join(file.keys()) or 'none'}")
            noise = file.get_tensor("noise")
            if noise.ndim == 3 and len(noise):
                noise = noise[-1]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"noise={path} is not a readable .safetensors file ({error})") from error
    if noise.ndim != 2 or noise.shape[1] != z_dim or len(noise) == 0:
        raise ValueError(
            f"noise={path} has shape {list(noise.shape)}; it must be [n, {z_dim}], z_dim being the generator's"
        )
    if not noise.is_floating_point():
        raise ValueError(f"noise={path} is {str(noise.dtype).removeprefix('torch.')}; it must be a floating type")
    if not noise.double().isfinite().all():  # which numbers of eight bits have no test of their own for
        raise ValueError(f"noise={path} has NaN or infinite values")
    return noise


@torch.no_grad()
def sample_where(
    networks: Networks,
    where: Mapping[str, bool],
    num_images: int,
    random: torch.Generator,
    condition: Mapping[str, Any] | None = None,
) -> Float[Tensor, "n z_dim"]:
    """Rejection sampling: noise of the prior whose images the classifier sees as `where` says.

    Raises:
        ValueError: fewer than `num_images` among 20,000 samples.
    """
    generator, classifier = networks.frozen(torch.float32)
    columns = [attributes.find(name, networks.classifier.names, key="where") for name in where]
    wanted = torch.tensor(list(where.values()))
    accepted: list[Tensor] = []
    for _ in tqdm(range(MAX_SAMPLES // SAMPLE_BATCH), desc="Looking for samples", unit_scale=SAMPLE_BATCH, leave=False):
        noise = noise_of(networks.generator, SAMPLE_BATCH, random, condition)
        for part in noise.split(min(LOOKED_AT, 2 * num_images)):
            fits = ((classifier(generator(part))[:, columns] > 0) == wanted).all(dim=1)
            accepted += part[fits]
            if len(accepted) >= num_images:
                return torch.stack(accepted[:num_images])
    raise ValueError(
        f"where={dict(where)} fits only {len(accepted)} of {MAX_SAMPLES} samples, fewer than num_images={num_images};"
        f" ask for fewer conditions or images"
    )
