"""What steering climbs: pure functions of the logits, the logits at the start and the rows' settings."""

import torch
from jaxtyping import Float
from torch import Tensor

from zsteer.steering.rows import Rows


def steering_score(
    logits: Float[Tensor, "rows k"], start: Float[Tensor, "rows k"], rows: Rows
) -> Float[Tensor, " rows"]:
    """±c[t] − λ ‖c[o] − c₀[o]‖₂ of each row, o being the kept logits: the tutorial's objective, which keeps all but t.

    The norm has a kink at zero change, where its gradient counts as 0; so `start` must be the very logits of the first
    step, not the same images scored in another batch.
    """
    change = (logits - start).where(rows.kept, 0.0)
    return rows.wanted(logits) - rows.penalty_weight * torch.linalg.vector_norm(change, dim=1)


def smooth_score(
    logits: Float[Tensor, "rows k"], start: Float[Tensor, "rows k"], sigma: Float[Tensor, " k"], rows: Rows
) -> Float[Tensor, " rows"]:
    """±c[t]/σ[t] − λ/2 · Σₒ ((c[o] − c₀[o]) / σ[o])² of each row, o being the kept logits."""
    change = ((logits - start) / sigma).where(rows.kept, 0.0)
    return rows.wanted(logits / sigma) - rows.penalty_weight / 2 * change.square().sum(dim=1)
