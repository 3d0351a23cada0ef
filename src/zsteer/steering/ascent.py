"""One step of the ascent, as a plain function of noise, method and optimizer."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zsteer.steering.methods import Method, Step


@runtime_checkable
class Optimizer(Protocol):
    """What is needed of an optimizer, torch's own or Lightning's."""

    def step(self) -> object:
        """Move the parameter against its gradient."""
        ...


def ascend(
    noise: nn.Parameter,
    step: Step,
    method: Method,
    optimizer: Optimizer,
    start: Float[Tensor, "rows z_dim"],
    moving: slice = slice(None),
) -> Float[Tensor, " rows"]:
    """Move each row of the noise by one step, in place; return the scores that it climbs.

    z ← retract(z + s · u), s being the row's step size and u what the optimizer makes of the method's direction at a
    learning rate of 1. A row that has arrived (see `Rows.until`) stays.

    Args:
        noise: the optimizer's only parameter, `[rows, z_dim]`.
        step: where the rows stand.
        start: the noise before the first step.
        moving: the numbers of the noise that the method sees and moves.
    """
    scores, direction = method.move(step)
    before = noise.detach().clone()
    noise.grad = torch.zeros_like(before)
    noise.grad[:, moving] = -direction
    optimizer.step()
    stepped = before + step.rows.step_size[:, None] * (noise.detach() - before)
    moved = before.clone()
    moved[:, moving] = method.retract(stepped[:, moving], start[:, moving])
    arrived = step.rows.wanted(step.logits.detach()) >= step.rows.until
    noise.data = torch.where(arrived[:, None], before, moved)
    return scores.detach()
