"""What a steering run went through, step by step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from zsteer.files import HISTORY, atomic_write


@dataclass
class History:
    """Lists over the recorded steps of a run, each entry before that step's update, the last after all.

    noise `[rows, z_dim]`; logits `[rows, K]` of the steering classifier; scores `[rows]`, of all steps but the last;
    images `[rows, 3, H, W]` in [-1, 1] by step, of the steps asked for and the last; steps, the recorded ones' numbers.
    """

    noise: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    images: dict[int, Tensor] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)

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

    def check_finite(self, images_of: Callable[[Tensor], Tensor]) -> None:
        """
        Args:
            images_of: the generator, which tells what broke.

        Raises:
            NonFiniteScore: a score or, at the end, a logit is NaN or infinite.
        """
        for step, scores in enumerate([*self.scores, self.logits[-1].sum(dim=1)]):
            broken = (~scores.isfinite()).nonzero().flatten().tolist()
            if broken:
                shown = {shown: images for shown, images in self.images.items() if shown < step}
                before = sum(recorded < step for recorded in self.steps)
                raise NonFiniteScore(
                    f"scores are not finite at step {step} in rows {broken}: "
                    f"{self._cause(step, before, broken, images_of)}",
                    History(self.noise[:before], self.logits[:before], self.scores[:step], shown, self.steps[:before]),
                )

    def _cause(self, step: int, place: int, rows: list[int], images_of: Callable[[Tensor], Tensor]) -> str:
        """Which of noise, images, logits and scores is the first that is not finite, and what to do.

        Args:
            place: where the step, or the next that is recorded, stands in the lists.
        """
        noise = self.noise[place][rows]
        smaller = "lower step_size, or use another" if step else "use another"
        if not noise.isfinite().all():
            return "the noise left all numbers; lower step_size, penalty_weight or what is large of method"
        if not images_of(noise).isfinite().all():
            return f"generator.network gives NaN or infinite images; {smaller}"
        if not self.logits[place][rows].isfinite().all():
            return f"classifier.network gives NaN or infinite logits; {smaller}"
        return "lower penalty_weight"

    def save(self, folder: Path, kept: Mapping[str, Tensor] | None = None) -> None:
        """Write `noise` `[recorded, n, z_dim]` and `logits` `[recorded, n, K]` of `steps`, and `score` `[num_steps]`.

        Args:
            kept: more tensors to keep beside them.
        """
        if not self.noise:
            return
        tensors = {
            "noise": torch.stack(self.noise),
            "logits": torch.stack(self.logits),
            "steps": torch.tensor(self.steps),
            "score": torch.stack(self.scores).mean(dim=1) if self.scores else torch.empty(0),
            **(kept or {}),
        }
        with atomic_write(folder / HISTORY) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def _each_tensor(histories: Sequence[History], function: Callable[[list[Tensor]], Tensor]) -> History:
    """A history of what a function makes of the tensors that stand in the same place of each of some histories."""

    def merged(part: str) -> list[Tensor]:
        parts = (getattr(history, part) for history in histories)
        return [function(list(tensors)) for tensors in zip(*parts, strict=True)]

    images = {step: function([history.images[step] for history in histories]) for step in histories[0].images}
    return History(merged("noise"), merged("logits"), merged("scores"), images, histories[0].steps)


class NonFiniteScore(ValueError):
    """Scores became NaN or infinite; `history` holds the steps before, which are worth keeping."""

    def __init__(self, message: str, history: History):
        super().__init__(message)
        self.history = history

    def __reduce__(self) -> tuple[Any, ...]:  # by which other processes get it
        return type(self), (str(self), self.history)
