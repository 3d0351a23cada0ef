"""A generator that is told what to draw: the last numbers of its noise are attributes of the image."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zsteer.data.attributes import find, resolve
from zsteer.settings import as_typed

NUM_EXAMPLES = 4096  # that a generator keeps
ROUNDING = 1e-3  # by which a factor may lie outside of its range
SHARE = 1 / 50  # of the examples, the nearest to the factors that are asked for, and as many at least:
LEAST = 16


class ConditionalGenerator(nn.Module):
    """A generator the last numbers of whose noise, `[n, z_dim]`, are a condition: labels, 0 or 1, or factors in σ.

    Its prior is standard normal noise beside conditions that occur together in the data, of which the weights hold
    examples.

    Args:
        network: any generator; its `z_dim` counts the condition.
        names: the condition's attributes, in their order.
        num_examples: rows of the data's targets.

    Raises:
        ValueError: no number is left for noise.
    """

    z_dim: int
    examples: Float[Tensor, "m c"]
    bounds: Float[Tensor, "2 c"]  # the least and the largest of the data
    scales: Float[Tensor, "2 c"]  # mean and deviation of each factor in the data's own units; 0 and 1 of labels

    def __init__(self, network: nn.Module, names: Sequence[str], num_examples: int):
        super().__init__()
        self.network, self.condition = network, tuple(names)
        z_dim: Any = network.z_dim
        self.z_dim = z_dim
        if len(self.condition) >= self.z_dim:
            raise ValueError(
                f"gan.condition has {len(self.condition)} names, which must be fewer than the generator's "
                f"z_dim={self.z_dim}"
            )
        self.register_buffer("examples", torch.zeros(num_examples, len(self.condition)))
        self.register_buffer("bounds", torch.zeros(2, len(self.condition)))
        self.register_buffer("scales", torch.tensor([[0.0], [1.0]]).repeat(1, len(self.condition)))

    def learn(self, targets: Float[np.ndarray, "n c"], scales: Sequence[tuple[float, float]]) -> None:
        """Keep an even choice of the data's targets, in its own units, and the factors' means and deviations."""
        chosen = np.linspace(0, len(targets) - 1, len(self.examples)).round().astype(int)
        self.scales.copy_(torch.tensor(scales).T)
        means, deviations = self.scales
        self.examples.copy_((torch.as_tensor(targets[chosen]).to(self.examples) - means) / deviations)
        ends = torch.as_tensor(np.stack([targets.min(axis=0), targets.max(axis=0)])).to(self.bounds)
        self.bounds.copy_((ends - means) / deviations)

    def forward(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n 3 h w"]:
        return self.network(noise)

    def config(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """Its config, given that of the network inside."""
        return {
            "_target_": "zsteer.networks.ConditionalGenerator",
            "network": dict(network),
            "names": list(self.condition),
            "num_examples": len(self.examples),
        }

    @property
    def labels(self) -> Bool[Tensor, " c"]:
        """Which of the condition's attributes are labels."""
        return ((self.examples == 0) | (self.examples == 1)).all(dim=0).cpu()

    def draw(self, num: int, random: torch.Generator, wanted: Mapping[str, Any]) -> Float[Tensor, "n z_dim"]:
        """Noise of the prior, given some attributes of the condition, in the data's own units.

        Raises:
            ValueError: another attribute, or a value out of its range.
        """
        noise = torch.randn(num, self.z_dim - len(self.condition), generator=random)
        values = self.values(wanted)
        alike = self.examples.float().cpu()[self._like(values)]
        conditions = alike[torch.randint(len(alike), (num,), generator=random)]
        return self.put(torch.cat([noise, conditions], dim=1), values)

    def put(self, noise: Float[Tensor, "n z_dim"], values: Mapping[int, float]) -> Float[Tensor, "n z_dim"]:
        """The same noise with other values of some of the condition's columns."""
        noise = noise.clone()
        for column, value in values.items():
            noise[:, column - len(self.condition)] = value
        return noise

    def values(self, wanted: Mapping[str, Any]) -> dict[int, float]:
        """The columns of the condition that are asked for, and their values there.

        Raises:
            ValueError: another attribute, or a value out of its range.
        """
        means, deviations = self.scales.double().tolist()
        bounds = (self.scales[0] + self.scales[1] * self.bounds).double().T.tolist()
        values = {}
        for name, value in wanted.items():
            column = find(str(name), self.condition, key="condition", owner="what the generator is conditioned on")
            if column in values:
                raise ValueError(f"{as_typed('condition', wanted)} names {self.condition[column]} twice")
            said = as_typed("condition", {name: value})
            label = bool(self.labels[column])
            least, most = (0.0, 1.0) if label else bounds[column]
            rounding = 0.0 if label else ROUNDING
            number = isinstance(value, int | float) and (label or not isinstance(value, bool))
            if not number or not least - rounding <= value <= most + rounding:
                what = (
                    "true or false, or between 0 and 1"
                    if label
                    else f"a number from {least:.4g} to {most:.4g}, as in the data"
                )
                raise ValueError(f"{said} must be {what}")
            values[column] = (value - means[column]) / deviations[column]
        return values

    def _like(self, values: Mapping[int, float]) -> Tensor:
        """The examples that have the most of the labels, and of these the nearest in the factors."""
        labels, examples = self.labels, self.examples.double().cpu()
        apart = {column: (examples[:, column] - value).abs() for column, value in values.items()}
        none = torch.zeros(len(examples), dtype=torch.float64)
        wrong = sum((apart[column] for column in values if labels[column]), none)
        distance = sum((apart[column].square() for column in values if not labels[column]), none)
        alike = (wrong == wrong.min()).nonzero().flatten()
        if all(labels[column] for column in values):
            return alike
        num = min(len(alike), max(LEAST, math.ceil(SHARE * len(examples))))
        return alike[distance[alike].topk(num, largest=False).indices]


def condition_of(generator: nn.Module) -> tuple[str, ...]:
    """The attributes that a generator is conditioned on, whose values are the last numbers of its noise."""
    return generator.condition if isinstance(generator, ConditionalGenerator) else ()


def conditioned(generator: nn.Module, names: Any) -> nn.Module:
    """A generator the last numbers of whose noise become its condition; the same one where it has it already.

    Args:
        names: see `attributes.resolve`; none for a generator that shall have no condition.

    Raises:
        ValueError: not such names; it has another condition; or no number is left for noise.
    """
    condition = resolve(names, "gan.condition") if names else ()
    own = condition_of(generator)
    if own and own != condition:
        raise ValueError(f"gan.condition={list(condition)} must be [{','.join(own)}], as in the generator's training")
    return ConditionalGenerator(generator, condition, NUM_EXAMPLES) if condition and not own else generator
