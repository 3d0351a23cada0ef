"""Steering algorithms: what a row climbs, which way its step goes, and where the step may land.

Each is a config of the group `method`. All see the same `Step`; none of them sees the judge.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from hydra.utils import instantiate
from jaxtyping import Bool, Float, Int
from omegaconf import DictConfig
from torch import Tensor, nn

from zsteer.data.attributes import colliding
from zsteer.networks.conditional import ConditionalGenerator, condition_of
from zsteer.networks.loading import Networks
from zsteer.optimizers import OptimizerFactory
from zsteer.settings import real_number, whole_number
from zsteer.steering.damping import System
from zsteer.steering.directions import check_source, find_directions
from zsteer.steering.objectives import smooth_score, steering_score
from zsteer.steering.reference import reference_noise
from zsteer.steering.rows import Rows

COUPLED_OPTIMIZERS = ("LBFGS", "Adafactor", "Muon")  # a number's step depends on the others'
STIFFNESS = 64.0  # of λ = 1, beside the unit stiffness by which a step stays with its gradient


class NoGradient(Exception):
    """A method asked for a gradient that a network does not compute."""


@dataclass(frozen=True)
class Step:
    """Where the rows stand before a step: what a method decides from.

    noise `[rows, z_dim]`; images and logits `[rows, K]` of the steering classifier, differentiable in it; `start`, what
    the logits were before the first step; `sigma` `[K]`, their standard deviations over unsteered samples; `logits_of`,
    logits of other noise.
    """

    number: int
    noise: Float[Tensor, "rows z_dim"]
    images: Float[Tensor, "rows 3 h w"]
    logits: Float[Tensor, "rows k"]
    start: Float[Tensor, "rows k"]
    sigma: Float[Tensor, " k"]
    rows: Rows
    logits_of: Callable[[Tensor], Tensor]


@runtime_checkable
class Method(Protocol):
    """A steering algorithm. The optimizer climbs `direction`; a row's step is its step size times the optimizer's."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def optimizer(self) -> OptimizerFactory:
        """What takes the step, at a learning rate of 1."""
        ...

    def move(self, step: Step) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows z_dim"]]:
        """The score that each row climbs, and the direction of its step."""
        ...

    def retract(
        self, noise: Float[Tensor, "rows z_dim"], start: Float[Tensor, "rows z_dim"]
    ) -> Float[Tensor, "rows z_dim"]:
        """Where the noise is put after the step."""
        ...


@runtime_checkable
class Fitting(Method, Protocol):
    """A method that first learns from unsteered samples."""

    def fit(self, networks: Networks, reference: Float[Tensor, "samples k"]) -> Method:
        """The same method, knowing generator and classifier, and the logits of that over the reference samples."""
        ...


def method_of(section: DictConfig) -> Method:
    """The method of a config's section, whose part `run` is not the method's but that of the keys of `steer`.

    Raises:
        ValueError: see `check_uncoupled`; or a setting of its own, or of its optimizer, is wrong.
    """
    method = instantiate({key: setting for key, setting in section.items() if key != "run"})
    number = nn.Parameter(torch.zeros(1))
    number.grad = torch.zeros(1)
    try:
        optimizer = method.optimizer([number])
        if type(optimizer).__name__ not in COUPLED_OPTIMIZERS:
            optimizer.step()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"method.optimizer cannot take a step: {error}") from error
    check_uncoupled(optimizer)
    return method


def check_uncoupled(optimizer: torch.optim.Optimizer, key: str = "method.optimizer") -> None:
    """
    Raises:
        ValueError: an optimizer by which an image's steps would depend on the others'.
    """
    if type(optimizer).__name__ in COUPLED_OPTIMIZERS:
        raise ValueError(
            f"{key}._target_={type(optimizer).__name__} must step each number by itself, as "
            "torch.optim.Adam does, or an image's steps would depend on the others'"
        )


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
    """Each image climbs its target along what of the gradient g leaves everything else in place.

    The step is the unit vector of d = (I + w JᵀJ + v M)⁻¹ g, which has the least ‖d − g‖² + w ‖Jd‖² + v dᵀMd. J is the
    Jacobian of the kept logits in σ: for v = 0 this is the projection (I − Jᵀ(JJᵀ + I/w)⁻¹J) g, damped by 1/w. The
    penalty weight λ is the stiffness w = 64 λ, whatever the noise's length: at 0 nothing is projected out. The mean
    square of a logit's gradient, in σ, is at least 1 in noise of any length (Poincaré's inequality). M is what a step
    changes in the image, the pull-back metric of its pixels (Arvanitidis et al. 2018, "Latent Space Oddity"), scaled to
    the trace of I.

    Args:
        image_weight: v.
        num_probes: M = GᵀG is estimated as the mean of (Gᵀr)(Gᵀr)ᵀ over so many random pictures r.
        refresh_every: J and M are computed anew every so many steps; they are what costs. In between, J learns from
            each step how the logits really changed along it (Broyden 1965).
        global_weight: g is the gradient's unit vector plus so much of the unit vector of the mean gradient over all
            noise (see `mean_gradients`): where an image's own gradient is lost, the mean one still leads on.
        directions: `[K, z_dim]`, the mean gradients; found by `fit`.
        pull: how much of the kept logits' drift Δ a step takes back, by −(I + w JᵀJ + v M)⁻¹ w JᵀΔ, at most one step.
        num_pairs: the logits are means over so many antithetic pairs of noise around the image's own, so that the
            gradient is one that does not vanish a little further on (Smilkov et al. 2017, "SmoothGrad"); 0 takes the
            image's own alone.
        radius: standard deviation of what is added.

    Raises:
        ValueError: a setting out of range.
    """

    optimizer: OptimizerFactory
    name: str = "projected"
    on_shell: bool = True
    image_weight: int | float = 0.0
    num_probes: int = 16
    refresh_every: int = 6
    global_weight: int | float = 0.0
    directions: Float[Tensor, "k z_dim"] | None = field(default=None, repr=False)
    pull: int | float = 0.0
    num_pairs: int = 0
    radius: int | float = 0.0
    _jacobian: Tensor = field(init=False, repr=False)
    _metric: Tensor | None = field(init=False, repr=False)
    _before: tuple[Tensor, Tensor] = field(init=False, repr=False)  # noise and logits of the step before

    def __post_init__(self) -> None:
        whole_number(self.refresh_every, "method.refresh_every", 1)
        whole_number(self.num_probes, "method.num_probes", 1)
        whole_number(self.num_pairs, "method.num_pairs", 0)
        for key in ("image_weight", "global_weight", "pull", "radius"):
            real_number(getattr(self, key), f"method.{key}", minimum=0.0)

    def fit(self, networks: Networks, reference: Float[Tensor, "samples k"]) -> "Projected":
        return replace(self, directions=find_directions("gradient", networks.generator, reference))

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        rows, logits = step.rows, self._smoothed(step) / step.sigma
        noise, seen = step.noise.detach().clone(), logits.detach().where(rows.kept, 0.0)
        if step.number % self.refresh_every == 0:
            self._jacobian = jacobian(logits, step.noise).where(rows.kept[:, :, None], 0.0)
            self._metric = image_metric(step, self.num_probes) if self.image_weight > 0 else None
        else:
            self._jacobian = secant(self._jacobian, noise - self._before[0], seen - self._before[1])
        self._before = noise, seen
        stiffness = STIFFNESS * rows.penalty_weight
        system = System(self._jacobian, stiffness, self.image_weight, self._metric)
        gradient = unit(gradient_of(rows.wanted(logits), step.noise))
        if self.global_weight > 0:
            assert self.directions is not None
            mean = rows.sign[:, None] * self.directions.to(step.noise)[rows.target]
            gradient = gradient + self.global_weight * unit(mean)
        direction = unit(system.solve(gradient))
        if self.pull > 0:
            drift = ((step.logits - step.start) / step.sigma).detach()
            force = stiffness[:, None] * (self._jacobian.mT @ drift[:, :, None]).squeeze(2)
            back = self.pull * system.solve(force) / rows.step_size[:, None]
            direction = direction - back / back.norm(dim=1, keepdim=True).clamp_min(1.0)
        scores = smooth_score(step.logits, step.start, step.sigma, rows)
        return scores, direction

    def _smoothed(self, step: Step) -> Tensor:
        if self.num_pairs == 0:
            return step.logits
        # The same draws for every row and in any company.
        random = torch.Generator().manual_seed(step.number)
        half = torch.randn(self.num_pairs, step.noise.shape[1], generator=random, dtype=torch.float64)
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

    Raises:
        ValueError: an unknown source.
    """

    optimizer: OptimizerFactory
    source: str = "gradient"
    name: str = "direction"
    on_shell: bool = False
    directions: Float[Tensor, "k z_dim"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_source(self.source, "method.source")

    def fit(self, networks: Networks, reference: Float[Tensor, "samples k"]) -> "Direction":
        return replace(self, directions=find_directions(self.source, networks.generator, reference))

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        assert self.directions is not None
        rows, directions = step.rows, self.directions.to(step.noise)
        scores = smooth_score(step.logits, step.start, step.sigma, rows).detach()
        wanted = rows.sign[:, None] * directions[rows.target]
        return scores, held(wanted, directions, rows.kept, rows.penalty_weight)

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

    def fit(self, networks: Networks, reference: Float[Tensor, "samples k"]) -> "BestOf":
        """
        Raises:
            ValueError: a conditional generator, whose samples differ in more than their noise.
        """
        if condition := condition_of(networks.generator):
            raise ValueError(
                f"method=best_of looks among samples, whose conditions differ: it cannot move the noise of a generator "
                f"of gan.condition=[{','.join(condition)}] alone"
            )
        return replace(self, samples=(reference_noise(networks.generator), reference))

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        assert self.samples is not None
        rows, (noise, logits) = step.rows, (part.to(step.noise) for part in self.samples)
        goals = []
        for number, start in enumerate(step.start):
            row = torch.tensor(number).expand(len(logits))  # each sample as this row would be scored there
            goals.append(smooth_score(logits, start.expand_as(logits), step.sigma, rows[row]).argmax())
        ahead = noise[torch.stack(goals)] - step.noise.detach()
        # One step's length, and what is left before the goal.
        lengths = ahead.norm(dim=1).maximum(rows.step_size).clamp_min(torch.finfo(ahead.dtype).tiny)
        scores = smooth_score(step.logits, step.start, step.sigma, rows).detach()
        return scores, ahead / lengths[:, None]

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return noise


@dataclass(frozen=True)
class OfCondition:
    """Each image keeps its noise, and the entry of its condition that is the target's moves to what is wanted.

    A step size is a share of the entry's range in the data; beyond that the generator has never been.

    Args:
        entries: the condition's column of each of the classifier's attributes, −1 where it has none; found by `fit`.
        ranges: of the condition's columns.

    Raises:
        ValueError: the generator takes no condition, or none of the target's.
    """

    optimizer: OptimizerFactory
    name: str = "condition"
    moves_condition: bool = field(default=True, init=False)
    entries: Int[Tensor, " k"] | None = field(default=None, repr=False)
    ranges: Float[Tensor, " c"] | None = field(default=None, repr=False)

    def fit(self, networks: Networks, reference: Float[Tensor, "samples k"]) -> "OfCondition":
        generator, names = networks.generator, networks.classifier.names
        if not isinstance(generator, ConditionalGenerator):
            raise ValueError(f"method={self.name} needs a generator that was trained with gan.condition")
        entries = [
            next((column for column, told in enumerate(generator.condition) if colliding((name, told))), -1)
            for name in names
        ]
        least, most = generator.bounds.cpu()
        return replace(self, entries=torch.tensor(entries), ranges=most - least)

    def move(self, step: Step) -> tuple[Tensor, Tensor]:
        assert self.entries is not None and self.ranges is not None
        rows, ranges = step.rows, self.ranges.to(step.noise)
        column = self.entries.to(rows.target.device)[rows.target]
        if (column < 0).any():
            raise ValueError(f"method={self.name}: the generator is told nothing of the target")
        scores = smooth_score(step.logits, step.start, step.sigma, rows).detach()
        return scores, torch.nn.functional.one_hot(column, len(ranges)) * rows.sign[:, None] * ranges

    def retract(self, noise: Tensor, start: Tensor) -> Tensor:
        return noise


def held(
    wanted: Float[Tensor, "rows z_dim"],
    directions: Float[Tensor, "k z_dim"],
    kept: Bool[Tensor, "rows k"],
    penalty_weight: Float[Tensor, " rows"],
) -> Float[Tensor, "rows z_dim"]:
    """The unit vectors of what is wanted, less what would move a row's kept logits, on average over all noise.

    Args:
        directions: of all logits; see `find_directions`.
        penalty_weight: how stiffly they are kept.
    """
    others = directions.expand(len(wanted), -1, -1).where(kept[:, :, None], 0.0)
    return unit(System(others, STIFFNESS * penalty_weight).solve(wanted))


def gradient_of(scores: Float[Tensor, " rows"], noise: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows z_dim"]:
    """Each row's gradient of its own score.

    Raises:
        NoGradient: the score does not depend on the noise, as far as torch has seen.
    """
    if not scores.requires_grad:
        raise NoGradient
    (gradient,) = torch.autograd.grad(scores.sum(), noise, retain_graph=True)
    return gradient


def jacobian(
    values: Float[Tensor, "rows k"],
    noise: Float[Tensor, "rows z_dim"],
) -> Float[Tensor, "rows k z_dim"]:
    """Each row's derivatives of its own K values, by K backward passes; as one pass batched over K they take longer."""
    return torch.stack([gradient_of(column, noise) for column in values.unbind(dim=1)], dim=1)


def secant(
    jacobian: Float[Tensor, "rows k z_dim"], step: Float[Tensor, "rows z_dim"], change: Float[Tensor, "rows k"]
) -> Float[Tensor, "rows k z_dim"]:
    """The Jacobian nearest to another by which a step makes a change (Broyden 1965); the same for a step of zero."""
    missed = change - (jacobian @ step[:, :, None]).squeeze(2)
    along = step / step.square().sum(dim=1, keepdim=True).clamp_min(torch.finfo(step.dtype).tiny)
    return jacobian + missed[:, :, None] * along[:, None, :]


def image_metric(step: Step, num_probes: int) -> Float[Tensor, "rows z z"]:
    """GᵀG of each row's image, estimated by random pictures and scaled to the trace of I."""
    random = torch.Generator().manual_seed(step.number)  # the same for every row and in any company
    rises = []
    for _ in range(num_probes):
        picture = torch.randn(step.images.shape[1:], generator=random, dtype=torch.float64).to(step.images)
        rises.append(gradient_of((step.images * picture).flatten(1).sum(dim=1), step.noise))
    seen = torch.stack(rises, dim=1)
    metric = seen.mT @ seen
    return metric * (metric.shape[1] / metric.diagonal(dim1=1, dim2=2).sum(dim=1).clamp_min(1e-30))[:, None, None]


def unit(vectors: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows z_dim"]:
    """Each row's direction; 0 stays 0."""
    # Scaled by its largest part first, because squares of a small gradient underflow.
    tiny = torch.finfo(vectors.dtype).tiny
    vectors = vectors / vectors.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_min(tiny)


def to_shell(noise: Float[Tensor, "rows z_dim"], start: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows z_dim"]:
    """Each row at the norm that it started with; NaN where its own overflows, which would put it at 0."""
    norm = noise.norm(dim=1, keepdim=True)
    return noise * (start.norm(dim=1, keepdim=True) / norm.where(norm.isfinite(), torch.nan))
