"""Settings that change while a GAN trains, counted in images."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cosine:
    """From `start` to `end` along half a cosine over the first `num_images` images, then constant.

    Raises:
        ValueError: no images at all.
    """

    start: int | float
    end: int | float
    num_images: int | float

    def __post_init__(self) -> None:
        if self.num_images <= 0:
            raise ValueError(f"a schedule's num_images={self.num_images} must be more than 0")

    def at(self, images: int) -> float:
        """The value once so many images have been seen."""
        share = min(images / self.num_images, 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2


Setting = int | float | Cosine


def value(setting: Setting, images: int) -> int | float:
    """A setting's value once so many images have been seen."""
    return setting.at(images) if isinstance(setting, Cosine) else setting
