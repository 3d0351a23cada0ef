"""Move noise so that one attribute of the generated images changes: the LightningModule.

One run is one job of a few rows (see `rows`); a batch of many jobs is the same module with more rows; several devices
share the rows. How a row moves is its method's business (see `methods`).
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from zsteer.networks.conditional import condition_of
from zsteer.networks.inference import frozen
from zsteer.networks.loading import without_gradients
from zsteer.steering.ascent import ascend
from zsteer.steering.history import History
from zsteer.steering.methods import Method, NoGradient, Step, check_uncoupled
from zsteer.steering.rows import Rows


class LatentSteering(LightningModule):
    """Gradient ascent on noise through a frozen generator and classifier; one training step is one ascent step.

    The noise `[rows, z_dim]` is the only parameter. The networks are kept outside the module's parameters and state,
    so that checkpoints hold the noise alone and Lightning cannot put batch norm into train mode. In a distributed
    Trainer each process steers its own share of the rows, none twice; rows do not act on one another, so nothing needs
    to be averaged. At the end each process has the history of all.

    Args:
        sigma: standard deviations of the classifier's logits over unsteered samples; a logit that never varies has ∞.
        show_steps: the steps whose images are recorded; the last step's always are.
        record_every: steps between two whose noise and logits are recorded; the first's and the last's always are.

    Of a conditional generator's noise only the free numbers move, or with a method that says so only its condition.

    A row whose score becomes NaN or infinite spoils no other; see `History.check_finite`.
    """

    def __init__(
        self,
        generator: nn.Module,
        classifier: nn.Module,
        noise: Float[Tensor, "rows z_dim"],
        rows: Rows,
        method: Method,
        sigma: Float[Tensor, " k"],
        show_steps: Iterable[int] = (),
        record_every: int = 1,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.noise = nn.Parameter(noise.clone())
        self.method = method
        self.show_steps, self.record_every = set(show_steps), record_every
        self.history = History()
        self.rows, self.sigma = rows, sigma
        self.networks = (generator, classifier)  # a tuple, so that nn.Module does not register them
        z_dim = noise.shape[1]
        free = z_dim - len(condition_of(generator))
        self.moving = slice(free, z_dim) if getattr(method, "moves_condition", False) else slice(0, free)

    def on_fit_start(self) -> None:
        # All ranks start with all rows, because data-parallel wrapping hands rank 0's parameter to everyone.
        bounds = torch.arange(len(self.rows)).tensor_split(self.trainer.world_size)[self.trainer.global_rank]
        own = slice(int(bounds[0]), int(bounds[-1]) + 1) if len(bounds) else slice(0, 0)
        self.noise.data, self.rows = self.noise.data[own], self.rows[own]
        # What is frozen needs no full-precision copy for mixed precision.
        mixed = str(self.trainer.precision) == "bf16-mixed"
        self._dtype = torch.bfloat16 if mixed else self.noise.dtype
        generator, classifier = self.networks
        self.networks = (frozen(generator, self._dtype, self.device), frozen(classifier, self._dtype, self.device))
        self.rows = self.rows.to(self.device, self.noise.dtype)
        self.sigma = self.sigma.to(self.device, self.noise.dtype)

    def forward(self, noise: Float[Tensor, "rows z_dim"]) -> tuple[Tensor, Tensor]:
        """Images `[rows, 3, H, W]` in [-1, 1] and logits `[rows, K]` of noise."""
        generator, classifier = self.networks
        images = generator(noise.to(self._dtype))
        return images, classifier(images).to(noise.dtype)

    def training_step(self, _: int, step: int) -> None:
        # The parameter itself had another shape when it was wrapped.
        noise = self.noise.detach()[:, self.moving].requires_grad_()
        images, logits = self(self._whole(noise))
        self._record(step, images, logits)
        rows = self.rows.at(step / max(1, self.trainer.num_training_batches - 1))
        stand = Step(
            step,
            noise,
            images,
            logits,
            self.history.logits[0],
            self.sigma,
            rows,
            lambda other: self(self._whole(other))[1],
        )
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        try:
            scores = ascend(self.noise, stand, self.method, optimizer, self.history.noise[0], self.moving)
        except NoGradient as error:  # which those of best_of, say, need not have
            role = "classifier" if images.requires_grad else "generator"
            raise ValueError(without_gradients(role)) from error
        self.history.scores.append(scores)

    def _whole(self, moving: Float[Tensor, "m part"]) -> Float[Tensor, "m z_dim"]:
        """Noise whose other numbers are those of the rows, which may be asked for several times over."""
        noise = self.noise.detach()
        if moving.shape[1] == noise.shape[1]:
            return moving
        noise = noise.repeat(len(moving) // max(1, len(noise)), 1)
        return torch.cat([noise[:, : self.moving.start], moving, noise[:, self.moving.stop :]], dim=1)

    def on_train_end(self) -> None:
        with torch.no_grad():
            images, logits = self(self.noise)
        step = len(self.history.scores)
        self.show_steps.add(step)
        self._record(step, images, logits, last=True)
        self.history = self.history.cpu()
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.history)
            self.history = History.joined(parts)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.method.optimizer([self.noise])
        check_uncoupled(optimizer)
        return optimizer

    def _record(self, step: int, images: Tensor, logits: Tensor, last: bool = False) -> None:
        if step % self.record_every == 0 or last:
            self.history.steps.append(step)
            self.history.noise.append(self.noise.detach().clone())
            self.history.logits.append(logits.detach())
        if step in self.show_steps:
            self.history.images[step] = images.detach().float()


# What a Trainer needs to know for steering: one epoch, whose batches are the steps; nothing to save or to log.
TRAINER_SETTINGS = {
    "max_epochs": 1,
    "max_steps": -1,
    "max_time": None,
    "limit_train_batches": None,
    "fast_dev_run": False,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}
