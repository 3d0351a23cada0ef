"""Move noise until its generated image is as near as it gets to a given picture: the LightningModule."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from zsteer.inversion.distance import Distance
from zsteer.networks.conditional import ConditionalGenerator, condition_of
from zsteer.optimizers import OptimizerFactory
from zsteer.steering.methods import unit

SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


class LatentInversion(LightningModule):
    """Descent on noise through a frozen generator; one training step is one step of each row towards its own picture.

    The noise `[rows, z_dim]` is the only parameter: the networks are kept outside, as in steering. Rows do not act on
    one another, as long as the optimizer steps each number by itself.

    Args:
        given: each row's picture, in [-1, 1].
        radii: the least and the largest norm of the noise, to which each step is brought back; a condition stays in its
            range.

    `losses` are each row's before each step, and after the last.
    """

    def __init__(
        self,
        generator: nn.Module,
        distance: Distance,
        given: Float[Tensor, "rows 3 h w"],
        noise: Float[Tensor, "rows z_dim"],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        radii: tuple[float, float],
    ):
        super().__init__()
        self.noise = nn.Parameter(noise.clone())
        self.radii, self.free = radii, noise.shape[1] - len(condition_of(generator))
        self.bounds = generator.bounds.to(noise) if isinstance(generator, ConditionalGenerator) else None
        self.losses: list[Float[Tensor, " rows"]] = []
        self._generator, self._distance, self._given = (generator,), distance, given  # a tuple is not registered
        self._optimizer, self._scheduler = optimizer, scheduler

    def on_fit_start(self) -> None:
        self._given = self._given.to(self.device, self.noise.dtype)
        with torch.no_grad():
            self._features = self._distance.space.look(self._given)[0]

    def forward(self, noise: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows 3 h w"]:
        """Images of noise, in [-1, 1]."""
        (generator,) = self._generator
        return generator(noise)

    def training_step(self, _: int) -> Tensor:
        losses = self._distance.pairs(self(self.noise), self._given, self._features)
        self.losses.append(losses.detach())
        return losses.sum()

    def optimizer_step(self, *step: Any, **more: Any) -> None:
        super().optimizer_step(*step, **more)
        with torch.no_grad():
            noise, condition = self.noise[:, : self.free], self.noise[:, self.free :]
            noise.copy_(unit(noise) * noise.norm(dim=1, keepdim=True).clamp(*self.radii))
            if self.bounds is not None:
                least, most = self.bounds.to(condition.device)
                condition.copy_(condition.clamp(least, most))

    def on_train_end(self) -> None:
        with torch.no_grad():
            self.losses.append(self._distance.pairs(self(self.noise), self._given, self._features))

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer([self.noise])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._scheduler(optimizer), "interval": "step"},
        }
