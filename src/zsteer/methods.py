"""Steering algorithms: what a row climbs, which way its step goes, and where the step may land.

Each is a config of the group `method`. All see the same `Step`; none of them sees the judge.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zsteer.directions import find_directions
from zsteer.losses import smooth_score, steering_score
from zsteer.networks import OptimizerFactory
from zsteer.reference import reference_noise
from zsteer.rows import Rows


@dataclass(frozen=True)
class Step:
    """Where the rows stand before a step: what a method decides from.

    noise `[rows, z_dim]`; logits `[rows, K]` of the steering classifier, differentiable in the noise; `start`, what they
    were before the first step; `sigma` `[K]`, their standard deviations over unsteered samples; `logits_of`, logits of
    other noise.
    """

    number: int
    noise: Float[Tensor, "rows z_dim"]
    logits: Float[Tensor, "rows k"]
    start: Float[Tensor, "rows k"]
    sigma: Float[Tensor, " k"]
    rows: Rows
    logits_of: Callable[[Tensor], Tensor]


@runtime_checkable
class Method(Protocol):
    """A steering algorithm. The optimizer climbs `direction`; a row's step is its step size times the optimizer's."""

    name: str
    optimizer: OptimizerFactory

    def move(self, step: Step) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows z_dim"]]:
        """The score that each row climbs, and the direction of its step."""
        ...

    def retract(
        self, noise: Float[Tensor, "rows z_dim"], start: Float[Tensor, "rows z_dim"]
    ) -> Float[Tensor, "rows z_dim"]:
        """Where the noise is put after the step."""
        ...


@runtime_checkable
class Fitting(Protocol):
    """A method that first learns from unsteered samples."""

    def fit(self, generator: nn.Module, reference: Float[Tensor, "samples k"]) -> Method:
        """The same method, knowing the classifier's logits over the reference samples of a generator."""
        ...


@dataclass(frozen=True)
class Tutorial:
    """The published algorithm: ∇ of the mean score over the images of a job, so each image's step is 1/n of its own.

    With `SGD(momentum=1)` gradients accumulate as in the published code, whose `zero_grad` misses the noise; with
    `momentum=0` it is the formula that the article states.
    """

    optimizer: OptimizerFactory
    name: str = "tutorial"

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        scores = steering_score(step.logits, step.start, step.rows)
        return scores, gradient_of(scores / step.rows.job_size, step.noise)

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return noise


@dataclass(frozen=True)
class Ascent:
    """Each image climbs its own score, the published one, whichever other images share the batch.

    `unit` takes the gradient's direction without its length. `on_shell` scales every row back to the norm that it
    started with: a Gaussian's samples lie near a sphere, and a generator knows nothing of noise far from it (White
    2016, "Sampling Generative Networks").
    """

    optimizer: OptimizerFactory
    name: str = "ascent"
    unit: bool = True
    on_shell: bool = False

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        scores = steering_score(step.logits, step.start, step.rows)
        gradient = gradient_of(scores, step.noise)
        return scores, unit(gradient) if self.unit else gradient

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return to_shell(noise, start) if self.on_shell else noise


@dataclass(frozen=True)
class Penalty:
    """Each image climbs a smooth score in units of σ by unit steps (see `smooth_score`).

    The published norm has a kink at no change, so that its first step ignores the penalty, and it counts a logit that
    spreads widely for more.
    """

    optimizer: OptimizerFactory
    name: str = "penalty"
    on_shell: bool = True

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        scores = smooth_score(step.logits, step.start, step.sigma, step.rows)
        return scores, unit(gradient_of(scores, step.noise))

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return to_shell(noise, start) if self.on_shell else noise


@dataclass
class Projected:
    """Each image climbs its target along what of the gradient g leaves the kept logits in place (see `project`).

    With the Jacobian J of the kept logits in σ, the step is the unit vector of (I − Jᵀ(JJᵀ + I/w)⁻¹J) g, less
    `pull` · Jᵀ(JJᵀ + I/w)⁻¹Δ, which takes back drift Δ that has come about, by one step at most. The penalty weight λ
    is the stiffness w = λ · z_dim, so that it means the same for noise of any length: 0 projects nothing out, and
    infinity all.

    Args:
        refresh_every: J is computed anew every so many steps; it is what costs.
        num_draws: the logits are means over so many draws of noise around the image's own, in antithetic pairs, so that
            the gradient is one that does not vanish a little further on (Smilkov et al. 2017, "SmoothGrad"); 0 takes
            the image's own alone.
        radius: standard deviation of those draws.
    """

    optimizer: OptimizerFactory
    name: str = "projected"
    on_shell: bool = True
    refresh_every: int = 5
    pull: float = 0.0
    num_draws: int = 0
    radius: float = 0.0
    _jacobian: Tensor = field(init=False, repr=False)

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        rows, logits = step.rows, self._smoothed(step) / step.sigma
        if step.number % self.refresh_every == 0:
            self._jacobian = jacobian_of(logits, step.noise).where(rows.kept[:, :, None], 0.0)
        gradient = gradient_of(rows.wanted(logits), step.noise)
        stiffness = rows.penalty_weight * step.noise.shape[1]
        direction = unit(project(gradient, self._jacobian, stiffness))
        if self.pull > 0:
            drift = ((step.logits - step.start) / step.sigma).detach()
            back = self.pull * taking(drift, self._jacobian, stiffness) / rows.step_size[:, None]
            direction = direction - back / back.norm(dim=1, keepdim=True).clamp_min(1.0)
        scores = smooth_score(step.logits, step.start, step.sigma, rows)
        return scores, direction

    def _smoothed(self, step: Step) -> Tensor:
        if self.num_draws == 0:
            return step.logits
        # The same draws for every row and in any company.
        random = torch.Generator().manual_seed(step.number)
        half = torch.randn(self.num_draws // 2, step.noise.shape[1], generator=random, dtype=torch.float64)
        draws = self.radius * torch.cat([half, -half]).to(step.noise)
        around = (step.noise + draws[:, None]).flatten(0, 1)
        return step.logits_of(around).unflatten(0, (len(draws), -1)).mean(dim=0)

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return to_shell(noise, start) if self.on_shell else noise


@dataclass(frozen=True)
class Direction:
    """Each image moves along one vector d that is the same for all: the direction of its target (see `directions`).

    What of d would move the kept logits is projected out, on average over all noise, as stiffly as the penalty weight
    says.

    Args:
        source: see `find_directions`.
        directions: `[K, z_dim]`, of each of the classifier's attributes; found by `fit`.
    """

    optimizer: OptimizerFactory
    source: str = "gradient"
    name: str = "direction"
    on_shell: bool = False
    directions: Float[Tensor, "k z_dim"] | None = field(default=None, repr=False)

    def fit(self, generator: nn.Module, reference: Float[Tensor, "samples k"]) -> "Direction":
        return replace(self, directions=find_directions(self.source, generator, reference))

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        assert self.directions is not None
        rows, directions = step.rows, self.directions.to(step.noise)
        scores = smooth_score(step.logits, step.start, step.sigma, rows).detach()
        wanted = rows.sign[:, None] * directions[rows.target]
        others = directions.expand(len(rows), -1, -1).where(rows.kept[:, :, None], 0.0)
        return scores, unit(project(wanted, others, rows.penalty_weight * directions.shape[1]))

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return to_shell(noise, start) if self.on_shell else noise


@dataclass(frozen=True)
class BestOf:
    """Each image walks straight to the best of 2,048 samples, that of the highest smooth score: search, not steering.

    Args:
        samples: noise `[N, z_dim]` and logits `[N, K]` of the samples, which `fit` knows.
    """

    optimizer: OptimizerFactory
    name: str = "best_of"
    samples: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def fit(self, generator: nn.Module, reference: Float[Tensor, "samples k"]) -> "BestOf":
        return replace(self, samples=(reference_noise(generator), reference))

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        assert self.samples is not None
        rows, (noise, logits) = step.rows, (part.to(step.noise) for part in self.samples)
        goals = []
        for row, start in enumerate(step.start):
            of_row = rows[torch.full((len(logits),), row)]
            goals.append(smooth_score(logits, start.expand_as(logits), step.sigma, of_row).argmax())
        ahead = noise[torch.stack(goals)] - step.noise.detach()
        # One step's length, and what is left before the goal.
        lengths = ahead.norm(dim=1).maximum(rows.step_size)
        scores = smooth_score(step.logits, step.start, step.sigma, rows).detach()
        return scores, ahead / lengths[:, None]

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return noise


def gradient_of(scores: Float[Tensor, " rows"], noise: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows z_dim"]:
    """Each row's gradient of its own score."""
    (gradient,) = torch.autograd.grad(scores.sum(), noise, retain_graph=True)
    return gradient


def jacobian_of(logits: Float[Tensor, "rows k"], noise: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows k z_dim"]:
    """Each row's derivatives of its own logits: K backward passes as one."""
    each = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[:, None].expand(-1, len(logits), -1)
    (jacobian,) = torch.autograd.grad(logits, noise, each, retain_graph=True, is_grads_batched=True)
    return jacobian.transpose(0, 1)


def taking(
    change: Float[Tensor, "rows k"], jacobian: Float[Tensor, "rows k z_dim"], stiffness: Float[Tensor, " rows"]
) -> Float[Tensor, "rows z_dim"]:
    """The step Jᵀ(JJᵀ + I/w)⁻¹c, of least ‖d‖²/w + ‖Jd − c‖²: what makes the change c (Levenberg–Marquardt)."""
    w = stiffness[:, None, None]
    system = torch.eye(change.shape[1], dtype=change.dtype, device=change.device) + w * jacobian @ jacobian.mT
    return (jacobian.mT @ torch.linalg.solve(system, w * change[:, :, None])).squeeze(2)


def project(
    gradient: Float[Tensor, "rows z_dim"], jacobian: Float[Tensor, "rows k z_dim"], stiffness: Float[Tensor, " rows"]
) -> Float[Tensor, "rows z_dim"]:
    """(I − Jᵀ(JJᵀ + I/w)⁻¹J) g: what of a gradient changes none of the logits whose Jacobian is J, damped by 1/w."""
    return gradient - taking((jacobian @ gradient[:, :, None]).squeeze(2), jacobian, stiffness)


def unit(vectors: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows z_dim"]:
    """Each row's direction; 0 stays 0."""
    # Scaled by its largest part first, because squares of a small gradient underflow.
    tiny = torch.finfo(vectors.dtype).tiny
    vectors = vectors / vectors.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_min(tiny)


def to_shell(noise: Float[Tensor, "rows z_dim"], start: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows z_dim"]:
    """Each row at the norm that it started with."""
    return noise * (start.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True))
