"""The rows that steering moves: one noise vector each, with its own target, edit, penalty, step size and job."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def step_length(size: int | float | str, z_dim: int) -> float:
    """A step's length in noise space, which a number is; `auto` is √z_dim / 32.

    √z_dim is the radius of the prior's shell, so that an automatic step turns noise of any length by the same angle.
    """
    return math.sqrt(z_dim) / 32 if size == "auto" else float(size)


@dataclass(frozen=True)
class Rows:
    """The settings of each row, as tensors `[rows]`; `kept` is `[rows, K]`.

    `sign` is +1 to add the target attribute, −1 to remove it; steps shrink or grow evenly from `step_size` to
    `last_step_size`; `job_size` is the number of rows of the row's job; `kept` says which logits the penalty holds in
    place; a row stops once `sign` · its target logit has reached `until`.
    """

    target: Int[Tensor, " rows"]
    sign: Float[Tensor, " rows"]
    penalty_weight: Float[Tensor, " rows"]
    step_size: Float[Tensor, " rows"]
    last_step_size: Float[Tensor, " rows"]
    job_size: Int[Tensor, " rows"]
    until: Float[Tensor, " rows"]
    kept: Bool[Tensor, "rows k"]

    def __len__(self) -> int:
        return len(self.target)

    def _columns(self) -> dict[str, Tensor]:
        return {column.name: getattr(self, column.name) for column in fields(self)}

    def __getitem__(self, which: slice | Tensor) -> "Rows":
        return Rows(**{name: column[which] for name, column in self._columns().items()})

    @classmethod
    def joined(cls, jobs: Sequence["Rows"]) -> "Rows":
        """The rows of several jobs, one job after the other."""
        columns = [rows._columns() for rows in jobs]
        return cls(**{name: torch.cat([own[name] for own in columns]) for name in columns[0]})

    @classmethod
    def of_job(
        cls,
        num_rows: int,
        target: int,
        sign: float,
        penalty_weight: float,
        step_size: float,
        kept: Bool[Tensor, " k"],
        until: float = math.inf,
        last_step_size: float | None = None,
    ) -> "Rows":
        """The rows of one job, which differ in nothing but their noise."""
        last_step_size = step_size if last_step_size is None else last_step_size

        def column(number: float) -> Tensor:
            return torch.full((num_rows,), float(number), dtype=torch.float64)

        return cls(
            target=torch.full((num_rows,), target),
            sign=column(sign),
            penalty_weight=column(penalty_weight),
            step_size=column(step_size),
            last_step_size=column(last_step_size),
            job_size=torch.full((num_rows,), num_rows),
            until=column(until),
            kept=kept.expand(num_rows, -1),
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> "Rows":
        """The same rows on a device, their real numbers as `dtype`."""
        columns = self._columns()
        return Rows(
            **{
                name: column.to(device, dtype if column.is_floating_point() else None)
                for name, column in columns.items()
            }
        )

    def at(self, progress: float) -> "Rows":
        """The same rows with the step size of a moment between the first step (0) and the last (1)."""
        return replace(self, step_size=torch.lerp(self.step_size, self.last_step_size, progress))

    def wanted(self, logits: Float[Tensor, "rows k"]) -> Float[Tensor, " rows"]:
        """`sign` · the target's logit of each row: what steering raises."""
        return self.sign * logits.gather(1, self.target[:, None]).squeeze(1)
