"""Directions damped where they would move what shall stay: a linear system for each row."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class System:
    """(I + w JᵀJ + v M) of each row, to be solved for what it stands before."""

    jacobian: Float[Tensor, "rows k z_dim"]
    stiffness: Float[Tensor, " rows"]
    image_weight: int | float = 0.0
    metric: Float[Tensor, "rows z z"] | None = None

    def solve(self, vectors: Float[Tensor, "rows z_dim"]) -> Float[Tensor, "rows z_dim"]:
        """Each row's solution, in float64 where its own type has too few digits; NaN where that has, too."""
        solution = _with_digits(self._matrix, vectors)
        lost = solution.isnan().any(dim=1)
        if lost.any():
            metric = None if self.metric is None else self.metric[lost].double()
            finer = System(self.jacobian[lost].double(), self.stiffness[lost].double(), self.image_weight, metric)
            solution[lost] = _with_digits(finer._matrix, vectors[lost].double()).to(solution.dtype)
        return solution

    @cached_property
    def _matrix(self) -> Float[Tensor, "rows z z"]:
        identity = torch.eye(self.jacobian.shape[2], dtype=self.jacobian.dtype, device=self.jacobian.device)
        system = identity + self.stiffness[:, None, None] * (self.jacobian.mT @ self.jacobian)
        return system if self.metric is None else system + self.image_weight * self.metric


def _with_digits(system: Float[Tensor, "rows z z"], vectors: Float[Tensor, "rows z_dim"]) -> Tensor:
    """The solution; NaN for a row whose identity is lost to rounding, which leaves noise where nothing is damped."""
    factor, lost = torch.linalg.cholesky_ex(system)  # not LU, which torch's MKL gets wrong after `set_num_threads(2)`
    solution = torch.cholesky_solve(vectors[:, :, None], factor).squeeze(2)
    rounding = torch.finfo(system.dtype).eps * system.diagonal(dim1=1, dim2=2).sum(dim=1)
    return solution.where(((rounding < 1) & (lost == 0))[:, None], torch.nan)
