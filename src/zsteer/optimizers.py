"""How a config says which optimizer: a class of torch.optim with everything set but the parameters."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
