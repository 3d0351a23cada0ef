"""Move noise so that one attribute of the generated images changes: the LightningModule, and what a run went through.

One run is one job of a few rows (see `rows`); a batch of many jobs is the same module with more rows; several devices
share the rows. How a row moves is its method's business (see `methods`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from zsteer.methods import Method, Step
from zsteer.networks import frozen
from zsteer.rows import Rows


@dataclass
class History:
    """What a steering run went through: lists over its steps, each entry before that step's update, the last after all.

    noise `[rows, z_dim]`; logits `[rows, K]` of the steering classifier; scores `[rows]`, one entry fewer; images
    `[rows, 3, H, W]` in [-1, 1] by step, of the steps asked for and the last.
    """

    noise: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    images: dict[int, Tensor] = field(default_factory=dict)

    def cpu(self) -> "History":
        """The same on the CPU."""
        return _each_tensor([self], lambda tensors: tensors[0].cpu())

    def of_rows(self, which: slice) -> "History":
        """What some of the rows went through."""
        return _each_tensor([self], lambda tensors: tensors[0][which])

    @staticmethod
    def joined(parts: Sequence["History"]) -> "History":
        """One history of the rows of several, which went through the same steps."""
        return _each_tensor(parts, torch.cat)

    def check_finite(self) -> None:
        """
        Raises:
            NonFiniteScore: a score or, at the end, a logit is NaN or infinite.
        """
        for step, scores in enumerate([*self.scores, self.logits[-1].sum(dim=1)]):
            broken = (~scores.isfinite()).nonzero().flatten().tolist()
            if broken:
                before = {shown: images for shown, images in self.images.items() if shown < step}
                raise NonFiniteScore(
                    f"scores are not finite at step {step} in rows {broken}; lower step_size or penalty_weight",
                    History(self.noise[:step], self.logits[:step], self.scores[:step], before),
                )


def _each_tensor(histories: Sequence[History], function: Callable[[list[Tensor]], Tensor]) -> History:
    """A history of what a function makes of the tensors that stand in the same place of each of some histories."""

    def merged(part: str) -> list[Tensor]:
        parts = (getattr(history, part) for history in histories)
        return [function(list(tensors)) for tensors in zip(*parts, strict=True)]

    images = {step: function([history.images[step] for history in histories]) for step in histories[0].images}
    return History(merged("noise"), merged("logits"), merged("scores"), images)


class NonFiniteScore(ValueError):
    """Scores became NaN or infinite; `history` holds the steps before."""

    def __init__(self, message: str, history: History):
        super().__init__(message)
        self.history = history


class LatentSteering(LightningModule):
    """Gradient ascent on noise through a frozen generator and classifier; one training step is one ascent step.

    The noise `[rows, z_dim]` is the only parameter. The networks are kept outside the module's parameters and state,
    so that checkpoints hold the noise alone and Lightning cannot put batch norm into train mode. In a distributed
    Trainer each process steers its own share of the rows, none twice; rows do not act on one another, so nothing needs
    to be averaged. At the end each process has the history of all.
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
    ):
        super().__init__()
        self.automatic_optimization = False
        self.noise = nn.Parameter(noise.clone())
        self.method = method
        self.show_steps = set(show_steps)
        self.history = History()
        self.rows, self.sigma = rows, sigma
        self._networks = (generator, classifier)  # a tuple, so that nn.Module does not register them

    def on_fit_start(self) -> None:
        # All ranks start with all rows, because data-parallel wrapping hands rank 0's parameter to everyone.
        bounds = torch.arange(len(self.rows)).tensor_split(self.trainer.world_size)[self.trainer.global_rank]
        own = slice(int(bounds[0]), int(bounds[-1]) + 1) if len(bounds) else slice(0, 0)
        self.noise.data, self.rows = self.noise.data[own], self.rows[own]
        self._dtype = network_dtype(str(self.trainer.precision), self.noise.dtype)
        self._networks = tuple(frozen(network, self._dtype, self.device) for network in self._networks)
        self.rows = self.rows.to(self.device, self.noise.dtype)
        self.sigma = self.sigma.to(self.device, self.noise.dtype)

    def forward(self, noise: Float[Tensor, "rows z_dim"]) -> tuple[Tensor, Tensor]:
        """Images `[rows, 3, H, W]` in [-1, 1] and logits `[rows, K]` of noise."""
        generator, classifier = self._networks
        images = generator(noise.to(self._dtype))
        return images, classifier(images).to(noise.dtype)

    def training_step(self, _: int, step: int) -> None:
        noise = self.noise.detach().requires_grad_()  # the parameter itself had another shape when it was wrapped
        images, logits = self(noise)
        start = self.history.logits[0] if step else logits.detach()
        rows = self.rows.at(step / max(1, self.trainer.num_training_batches - 1))
        where = Step(step, noise, images, logits, start, self.sigma, rows, lambda other: self(other)[1])
        scores, direction = self.method.move(where)
        self._record(step, images, logits)
        self.history.scores.append(scores.detach())
        self.noise.grad = -direction
        before = self.noise.detach().clone()
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.step()
        # The optimizer's learning rate is 1; each row takes its own step size of what the optimizer would do.
        moved = before + rows.step_size[:, None] * (self.noise.detach() - before)
        moved = self.method.retract(moved, self.history.noise[0])
        arrived = rows.wanted(logits.detach()) >= rows.until
        self.noise.data = torch.where(arrived[:, None], before, moved)

    def on_train_end(self) -> None:
        with torch.no_grad():
            images, logits = self(self.noise)
        step = len(self.history.scores)
        self.show_steps.add(step)
        self._record(step, images, logits)
        self.history = self.history.cpu()
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.history)
            self.history = History.joined(parts)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.method.optimizer([self.noise])

    def _record(self, step: int, images: Tensor, logits: Tensor) -> None:
        self.history.noise.append(self.noise.detach().clone())
        self.history.logits.append(logits.detach())
        if step in self.show_steps:
            self.history.images[step] = images.detach().float()


# What a Trainer needs to know for steering: one epoch, whose batches are the steps; nothing to save or to log.
TRAINER_SETTINGS = {
    **{"max_epochs": 1, "max_steps": -1, "max_time": None, "limit_train_batches": None, "fast_dev_run": False},
    **{"logger": False, "enable_checkpointing": False, "enable_model_summary": False},
}


def network_dtype(precision: str, noise: torch.dtype) -> torch.dtype:
    """What the networks compute in: what is frozen needs no full-precision copy for mixed precision."""
    return torch.bfloat16 if precision == "bf16-mixed" else noise


def steer(
    generator: nn.Module,
    classifier: nn.Module,
    noise: Float[Tensor, "rows z_dim"],
    rows: Rows,
    method: Method,
    num_steps: int,
    sigma: Float[Tensor, " k"],
    show_steps: Iterable[int] = (),
    trainer: Trainer | None = None,
) -> History:
    """Steer all rows for `num_steps` steps on the trainer's devices, and return on the CPU what they went through.

    Args:
        sigma: standard deviations of the classifier's logits over unsteered samples; a logit that never varies has ∞.

    A row whose score becomes NaN or infinite spoils no other; see `History.check_finite`.
    """
    trainer = trainer or Trainer(devices=1, **TRAINER_SETTINGS)
    module = LatentSteering(generator, classifier, noise, rows, method, sigma, show_steps)
    trainer.fit(module, range(num_steps))
    return module.history
