"""What a training gives: a network, its figures, and files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from zsteer.files import write_json
from zsteer.networks.checkpoints import save_weights
from zsteer.pictures import pillow
from zsteer.results import Result


@dataclass(frozen=True, repr=False)
class Trained(Result):
    """A trained network.

    Args:
        name: of its file, without the suffix.
        network: in eval mode; of a GAN the averaged generator.
        metrics: its figures.
        config: the resolved config that it was trained by.
        details: more of them, which `metrics.json` has too.
        image: samples of a generator, in [0, 1].
        note: what is to be said of the figures.
    """

    name: str
    network: nn.Module
    metrics: dict[str, Any]
    config: dict[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)
    image: Float[Tensor, "3 h w"] | None = field(default=None, repr=False)
    note: str | None = None

    @property
    def picture(self) -> Image | None:
        """The samples."""
        return None if self.image is None else pillow(self.image)

    def write(self, folder: Path) -> None:
        """Write the weights, beside them config and figures as JSON, and `metrics.json`."""
        figures = {**self.metrics, **self.details}
        about = {"config": self.config, "figures": figures}
        save_weights(self.network, folder / f"{self.name}.safetensors", about)
        write_json(folder / "metrics.json", figures)

    def report(self, folder: Path) -> str:
        """The figures, and where the weights are."""
        return f"{self}\n  {folder / self.name}.safetensors"

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.metrics.items()]
        return "\n".join(f"  {line}" for line in (*lines, self.note) if line is not None)
