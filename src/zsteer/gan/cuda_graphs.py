"""CUDA graphs: the kernels of a step, launched together, where Python would launch them one by one for longer than they
run.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from zsteer.gan.schedules import Cosine

WARM_UPS = 3  # calls in which libraries choose their algorithms and allocate what they keep

Draw = Callable[..., Tensor]  # random numbers from how many, of what distribution and shape
Step = Callable[..., dict[str, Tensor]]  # of some tensors and a source of random numbers


class CapturedStep:
    """A step that leaves gradients in some weights, captured after a few calls and from then on replayed as a whole.

    What it reads must always have the same shapes. Random numbers are drawn anew, as the step itself would draw them;
    any other number that is not a tensor stays what it was when the step was captured.
    """

    def __init__(self, step: Step, draw: Draw, weights: Iterable[nn.Parameter]):
        self.step, self.draw, self.weights = step, draw, list(weights)
        self.num_calls = 0
        self.draws: list[tuple[Tensor, tuple]] = []  # where drawn numbers go, and how they are drawn
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        self.num_calls += 1
        if self.num_calls <= WARM_UPS:
            return self._warm_up(*inputs)
        if self.graph is None:
            self._capture(*inputs)
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given)
        for held, drawn in self.draws:
            held.copy_(self.draw(*drawn), non_blocking=True)
        assert self.graph is not None
        self.graph.replay()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        return self.terms

    def _warm_up(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The step itself, on another stream than the default one, as what is to be captured must have run."""
        self.draws.clear()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            terms = self.step(*inputs, self._note)
        torch.cuda.current_stream().wait_stream(self.stream)
        return terms

    def _note(self, *drawn: Any) -> Tensor:
        numbers = self.draw(*drawn)
        self.draws.append((torch.empty_like(numbers), drawn))
        return numbers

    def _capture(self, *inputs: Tensor) -> None:
        self.inputs = [given.detach().clone() for given in inputs]
        held = iter([buffer for buffer, _ in self.draws])
        graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # of weights cast before, which a replay would not cast anew
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may copy data meanwhile
            self.terms = self.step(*self.inputs, lambda *_: next(held))
        torch.clear_autocast_cache()
        self.gradients = [weight.grad for weight in self.weights]
        self.graph = graph


def check_capturable(settings: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: one of a GAN's settings is not in the kernels that would be replayed.
    """
    for key, setting in settings.items():
        if isinstance(setting, Cosine) or not isinstance(setting, int | float) and setting:
            raise ValueError(f"gan.cuda_graphs=true would repeat what gan.{key} does at first; leave one of them out")


def check_one_gpu(trainer: Trainer) -> None:
    """
    Raises:
        ValueError: training is not on one CUDA GPU.
    """
    if trainer.world_size > 1 or trainer.strategy.root_device.type != "cuda":
        raise ValueError("gan.cuda_graphs=true needs one CUDA GPU, as of trainer=gpu; leave it out")
