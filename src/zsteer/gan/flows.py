"""Fitting a flow to numbers, by maximum likelihood."""

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from zsteer.data.streams import random_source
from zsteer.networks.described import Flow

BATCH_SIZE = 512
LEARNING_RATE = 2e-3  # at its highest
WEIGHT_DECAY = 0.1
CLIP_NORM = 5.0
BLUR = 0.1  # deviation of what is added to the numbers, which would be learned by heart
HELD_OUT = 10  # one of so many numbers says which weights are best
CHECKS = 20  # how often it is asked


def fit(flow: Flow, numbers: Float[Tensor, "n k"], num_steps: int, dropout: float, seed: int) -> None:
    """Have a flow make numbers such as these of noise, by the weights that were best on a tenth of them held out.

    Args:
        dropout: share of its hidden units that each step leaves out.
    """
    layers = [module for module in flow.modules() if isinstance(module, nn.Dropout)]
    for layer in layers:
        layer.p = dropout
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its matrices are too small to be shared, and threads that wait for each other cost more
    try:
        with torch.random.fork_rng(devices=[]):  # dropout draws from torch's own source
            torch.manual_seed(random_source(seed, 0, 4).initial_seed())
            _fit(flow.requires_grad_(True), numbers, num_steps, random_source(seed, 0, 3))
    finally:
        torch.set_num_threads(num_threads)
        flow.requires_grad_(False).train()
        for layer in layers:
            layer.p = 0.0


def _fit(flow: Flow, numbers: Float[Tensor, "n k"], num_steps: int, random: torch.Generator) -> None:
    held_out, seen = numbers[::HELD_OUT], numbers[torch.arange(len(numbers)) % HELD_OUT != 0]
    optimizer = torch.optim.AdamW(flow.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=num_steps, pct_start=0.1)
    least, best = math.inf, flow.state_dict()
    for step in tqdm(range(1, num_steps + 1), desc="Fitting the flow", leave=False):
        batch = seen[torch.randint(len(seen), (BATCH_SIZE,), generator=random)]
        batch = batch + BLUR * torch.randn(batch.shape, generator=random)
        optimizer.zero_grad()
        surprise(flow.train(), batch).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        if step % math.ceil(num_steps / CHECKS) == 0 or step == num_steps:
            with torch.no_grad():
                found = surprise(flow.eval(), held_out).item()
            if found < least:
                least, best = found, copy.deepcopy(flow.state_dict())
    flow.load_state_dict(best)


def surprise(flow: Flow, numbers: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """−log p of some numbers under a flow, mean, without the normal distribution's constant."""
    noise, log_volume = flow.inverse(numbers)
    return (noise.square().sum(dim=1) / 2 - log_volume).mean()
