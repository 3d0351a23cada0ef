"""Draw images of a generator: as files, as one picture, and the noise that they come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from omegaconf import DictConfig
from PIL.Image import Image
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from zsteer.files import atomic_write, is_main_process, write_json
from zsteer.networks.inference import images_of, noise_of
from zsteer.networks.loading import load_network, try_generator
from zsteer.pictures import grid_of, pillow, save_picture
from zsteer.results import Result
from zsteer.steering.start import conditioned_noise

PICTURE = "samples.png"
COLUMNS, MAX_SHOWN = 8, 64  # of the picture


@dataclass(frozen=True, repr=False)
class Samples(Result):
    """Images `[n, 3, H, W]` in [-1, 1] of a generator, and their noise `[n, z_dim]`."""

    images: Float[Tensor, "n 3 h w"]
    noise: Float[Tensor, "n z_dim"]
    metrics: dict[str, Any]

    @property
    def image(self) -> Float[Tensor, "3 h2 w2"]:
        """The first 64 as one picture in [0, 1]."""
        return grid_of(self.images[:MAX_SHOWN], columns=min(COLUMNS, len(self.images)))

    @property
    def picture(self) -> Image:
        """The first 64 as one picture."""
        return pillow(self.image)

    def write(self, folder: Path) -> None:
        """Write `images/00000.png` and so on, `samples.png`, `noise.safetensors`, and `metrics.json` last."""
        for number, image in enumerate(tqdm(self.images, desc="Writing", unit="image", delay=2)):
            save_picture(folder / "images" / f"{number:05}.png", ((image + 1) / 2).clamp(0, 1))
        save_picture(folder / PICTURE, self.image)
        with atomic_write(folder / "noise.safetensors") as temporary:
            save_file({"noise": self.noise.contiguous()}, temporary)
        write_json(folder / "metrics.json", self.metrics)

    def report(self, folder: Path) -> str:
        """Where the pictures are."""
        return f"{self}\n  {folder / PICTURE}"

    def __str__(self) -> str:
        n, _, height, width = self.images.shape
        return f"{n} images of {height}×{width} pixels"


def draw_samples(cfg: DictConfig, folder: Path | None) -> Samples:
    """The images of a seed or of a file's noise."""
    generator = load_network(cfg.generator, "generator")
    try_generator(generator)
    if cfg.noise is None:
        noise = noise_of(generator, cfg.num_images, cfg.seed, cfg.condition)
    else:
        noise = conditioned_noise(generator, cfg.noise, cfg.condition)
    images = images_of(generator, noise)
    height, width = images.shape[2:]
    samples = Samples(images, noise, {"num_images": len(noise), "seed": cfg.seed, "height": height, "width": width})
    if folder is not None and is_main_process():
        samples.write(folder)
    return samples
