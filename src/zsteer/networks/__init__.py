"""Generators, discriminators and classifiers.

A generator maps noise `[n, z_dim]` to images `[n, 3, H, W]` in [-1, 1]; a discriminator maps images to logits `[n]`; a
classifier maps images to logits `[n, K]`.
"""

from zsteer.networks.combined import Conjunction, JoinedClassifier
from zsteer.networks.conditional import ConditionalGenerator
from zsteer.networks.dcgan import DCGANGenerator, Discriminator
from zsteer.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from zsteer.networks.residual import ResidualClassifier
from zsteer.networks.sngan import SNGANDiscriminator, SNGANGenerator
from zsteer.networks.tutorial import Classifier, Generator

__all__ = [
    "Classifier",
    "ConditionalGenerator",
    "Conjunction",
    "DCGANGenerator",
    "Discriminator",
    "Generator",
    "JoinedClassifier",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "ResidualClassifier",
    "SNGANDiscriminator",
    "SNGANGenerator",
]
