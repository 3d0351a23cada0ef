"""Move noise so that one attribute of the generated images changes: the LightningModule, its rows and its methods.

A row is one noise vector with its own target, edit, penalty weight, step size and job. One run is one job of a few
rows; a batch of many jobs is the same module with more rows; several devices share the rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from zsteer.losses import steering_score
from zsteer.networks import OptimizerFactory, frozen


@dataclass(frozen=True)
class Rows:
    """The settings of each row, as tensors `[rows]`.

    `sign` is +1 to add the target attribute, −1 to remove it; `job_size` is the number of rows of the row's job.
    """

    target: Int[Tensor, " rows"]
    sign: Float[Tensor, " rows"]
    penalty_weight: Float[Tensor, " rows"]
    step_size: Float[Tensor, " rows"]
    job_size: Int[Tensor, " rows"]

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, which: slice) -> "Rows":
        return Rows(*(getattr(self, column.name)[which] for column in fields(self)))

    @classmethod
    def joined(cls, jobs: Sequence["Rows"]) -> "Rows":
        """The rows of several jobs, one job after the other."""
        return cls(*(torch.cat([getattr(rows, column.name) for rows in jobs]) for column in fields(cls)))

    @classmethod
    def of_job(cls, num_rows: int, target: int, sign: float, penalty_weight: float, step_size: float) -> "Rows":
        """The rows of one job, which differ in nothing but their noise."""
        return cls(
            torch.full((num_rows,), target),
            torch.full((num_rows,), float(sign), dtype=torch.float64),
            torch.full((num_rows,), float(penalty_weight), dtype=torch.float64),
            torch.full((num_rows,), float(step_size), dtype=torch.float64),
            torch.full((num_rows,), num_rows),
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> "Rows":
        """The same rows on a device, their real numbers as `dtype`."""
        moved = (getattr(self, column.name).to(device) for column in fields(self))
        return Rows(*(column.to(dtype) if column.is_floating_point() else column for column in moved))


@runtime_checkable
class Method(Protocol):
    """What a steering algorithm decides: the direction that the optimizer climbs, and where a step may land."""

    name: str
    optimizer: OptimizerFactory

    def gradient(
        self, scores: Float[Tensor, " rows"], noise: Float[Tensor, "rows z_dim"], rows: Rows
    ) -> Float[Tensor, "rows z_dim"]: ...

    def retract(
        self, noise: Float[Tensor, "rows z_dim"], start: Float[Tensor, "rows z_dim"]
    ) -> Float[Tensor, "rows z_dim"]: ...


@dataclass(frozen=True)
class Tutorial:
    """The published algorithm: ∇ of the mean score over the images of a job, so each image's step is 1/n of its own.

    With `SGD(momentum=1)` gradients accumulate as in the published code, whose `zero_grad` misses the noise; with
    `momentum=0` it is the formula that the article states.
    """

    optimizer: OptimizerFactory
    name: str = "tutorial"

    def gradient(self, scores: Tensor, noise: Tensor, rows: Rows) -> Tensor:
        (gradient,) = torch.autograd.grad((scores / rows.job_size).sum(), noise)
        return gradient

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return noise


@dataclass(frozen=True)
class Ascent:
    """Each image climbs its own score along its unit gradient, whichever other images share the batch.

    `on_shell` scales every row back to the norm that it started with: a Gaussian's samples lie near a sphere, and a
    generator knows nothing of noise far from it (White 2016, "Sampling Generative Networks").
    """

    optimizer: OptimizerFactory
    name: str = "ascent"
    on_shell: bool = False

    def gradient(self, scores: Tensor, noise: Tensor, rows: Rows) -> Tensor:
        (gradient,) = torch.autograd.grad(scores.sum(), noise)
        # Scaled by its largest part first, because squares of a small gradient underflow.
        tiny = torch.finfo(gradient.dtype).tiny
        gradient = gradient / gradient.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
        return gradient / torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp_min(tiny)

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        if not self.on_shell:
            return noise
        return noise * (start.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True))


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
        show_steps: Iterable[int] = (),
    ):
        super().__init__()
        self.automatic_optimization = False
        self.noise = nn.Parameter(noise.clone())
        self.method = method
        self.show_steps = set(show_steps)
        self.history = History()
        self.rows = rows
        self._networks = (generator, classifier)  # a tuple, so that nn.Module does not register them

    def on_fit_start(self) -> None:
        # All ranks start with all rows, because data-parallel wrapping hands rank 0's parameter to everyone.
        bounds = torch.arange(len(self.rows)).tensor_split(self.trainer.world_size)[self.trainer.global_rank]
        own = slice(int(bounds[0]), int(bounds[-1]) + 1) if len(bounds) else slice(0, 0)
        self.noise.data, self.rows = self.noise.data[own], self.rows[own]
        # What is frozen needs no full-precision copy, so under mixed precision the networks themselves are bfloat16.
        mixed = self.trainer.precision == "bf16-mixed"
        self._dtype = torch.bfloat16 if mixed else self.noise.dtype
        self._networks = tuple(frozen(network, self._dtype, self.device) for network in self._networks)
        self.rows = self.rows.to(self.device, self.noise.dtype)

    def forward(self, noise: Float[Tensor, "rows z_dim"]) -> tuple[Tensor, Tensor]:
        """Images `[rows, 3, H, W]` in [-1, 1] and logits `[rows, K]` of noise."""
        generator, classifier = self._networks
        images = generator(noise.to(self._dtype))
        return images, classifier(images).to(noise.dtype)

    def training_step(self, _: int, step: int) -> None:
        noise = self.noise.detach().requires_grad_()  # the parameter itself had another shape when it was wrapped
        images, logits = self(noise)
        start = self.history.logits[0] if step else logits.detach()
        rows = self.rows
        scores = steering_score(logits, start, rows.target, rows.sign, rows.penalty_weight)
        self._record(step, images, logits)
        self.history.scores.append(scores.detach())
        self.noise.grad = -self.method.gradient(scores, noise, rows)
        before = self.noise.detach().clone()
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.step()
        # The optimizer's learning rate is 1; each row takes its own step size of what the optimizer would do.
        moved = before + rows.step_size[:, None] * (self.noise.detach() - before)
        self.noise.data = self.method.retract(moved, self.history.noise[0])

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


def steer(
    generator: nn.Module,
    classifier: nn.Module,
    noise: Float[Tensor, "rows z_dim"],
    rows: Rows,
    method: Method,
    num_steps: int,
    show_steps: Iterable[int] = (),
    trainer: Trainer | None = None,
) -> History:
    """Steer all rows for `num_steps` steps on the trainer's devices, and return on the CPU what they went through.

    A row whose score becomes NaN or infinite spoils no other; see `History.check_finite`.
    """
    trainer = trainer or Trainer(devices=1, **TRAINER_SETTINGS)
    module = LatentSteering(generator, classifier, noise, rows, method, show_steps)
    trainer.fit(module, range(num_steps))
    return module.history
