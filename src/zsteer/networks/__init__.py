"""Generators, discriminators and classifiers.

A generator maps noise `[n, z_dim]` to images `[n, 3, H, W]` in [-1, 1]; a discriminator maps images to logits `[n]`; a
classifier maps images to logits `[n, K]`. With `num_conditions` K a discriminator gives `[n, 1 + K]`: the logit, and
what is added to it for each unit of each condition (the projection of Miyato & Koyama 2018, eq. 3, with the rows of the
last layer for V), which GANs take from its mean and over √K.
"""

from zsteer.networks.combined import Conjunction, JoinedClassifier
from zsteer.networks.conditional import ConditionalGenerator
from zsteer.networks.dcgan import DCGANGenerator, Discriminator
from zsteer.networks.described import DescribedGenerator
from zsteer.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from zsteer.networks.residual import ResidualClassifier
from zsteer.networks.sngan import SNGANDiscriminator, SNGANGenerator
from zsteer.networks.tutorial import Classifier, Generator

__all__ = [
    "Classifier",
    "ConditionalGenerator",
    "Conjunction",
    "DCGANGenerator",
    "DescribedGenerator",
    "Discriminator",
    "Generator",
    "JoinedClassifier",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "ResidualClassifier",
    "SNGANDiscriminator",
    "SNGANGenerator",
]
