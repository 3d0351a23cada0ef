"""Small untrained networks, one of whose attributes has a name that a page must not take for its own words."""

import numpy as np
import torch
from torch import nn

from zsteer.networks.conditional import ConditionalGenerator
from zsteer.networks.loading import NamedClassifier, Networks

HOSTILE = '</script><b title="it">&amp;'
NAMES = ("Smiling", HOSTILE, "Bald", "Bangs")


class Generator(nn.Module):
    """Images of 8×8 pixels from eight numbers."""

    z_dim = 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 3 * 64), nn.Tanh(), nn.Unflatten(1, (3, 8, 8)))

    def forward(self, noise):
        return self.layers(noise)


def small_networks(condition: tuple[str, ...] = ()) -> Networks:
    torch.manual_seed(1)
    generator = Generator()
    if condition:
        generator = ConditionalGenerator(generator, condition, num_examples=20)
        targets = np.random.default_rng(0).integers(0, 2, (50, len(condition))).astype(np.float32)
        targets[:, -1] = np.linspace(10, 30, 50)  # a factor, of mean 20 and deviation 5
        generator.learn(targets, [(0.0, 1.0)] * (len(condition) - 1) + [(20.0, 5.0)])
    classifier, judge = (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).eval() for _ in range(2))
    return Networks(generator.eval(), NamedClassifier(classifier, NAMES), NamedClassifier(judge, NAMES[::-1]))
