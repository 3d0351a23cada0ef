"""What a classifier sees of images as standard normal numbers, by independent formulas."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata
from torch import nn

from zsteer.data.faces import FaceData
from zsteer.data.store import build_store
from zsteer.gan.description import Description
from zsteer.gan.losses import AdversarialLoss
from zsteer.gan.module import GANModule
from zsteer.gan.regularizers import InfoGAN
from zsteer.networks.checkpoints import load_weights, save_weights
from zsteer.networks.described import DescribedGenerator
from zsteer.networks.tutorial import Classifier, Generator

NUM = 40
LOSS = AdversarialLoss(lambda real, fake: (fake - real).mean(), lambda fake: -fake.mean())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of noise, with two labels."""
    folder = tmp_path_factory.mktemp("described") / "store"
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (NUM, 3, 64, 64), dtype=np.uint8)
    targets = np.stack([np.arange(NUM) % 2, np.arange(NUM) % 3 == 0], axis=1).astype(np.float32)
    splits = np.zeros(NUM, dtype=np.uint8)
    build_store(folder, lambda c: (images[c], targets[c]), splits, ("Smiling", "Male"), "noise", made={})
    return FaceData(root=folder, batch_size=8, max_images=16)


@pytest.fixture(scope="module")
def description(data, section):
    made = Description(section, layers=2, width=8, num_steps=20)
    made.prepare(data)
    return made


def seen_by(section, images):
    networks = (
        load_weights(Classifier(n_classes=outputs, hidden_dim=2), part["checkpoint"]).eval()
        for outputs, part in ((2, section), (1, section["regressor"]))
    )
    with torch.no_grad():
        return np.concatenate([network(images).numpy() for network in networks], axis=1)


def test_numbers_are_uncorrelated_normal_quantiles_each_of_its_own_attribute(description, data, section):
    images = torch.tensor(data.store.images[:]) / 127.5 - 1
    numbers = description(images).numpy()
    assert description.names == ("Smiling", "Male", "height")
    # Each value is one of the examples: of the ranks 1, 2, ... the shares (rank - 1/2) / (NUM + 1).
    ranks = rankdata(seen_by(section, images), axis=0)
    normal = norm.ppf((ranks - 0.5) / (NUM + 1))
    correlation = np.corrcoef(normal.T)
    assert np.abs(correlation - np.eye(3)).max() > 0.1  # before
    values, axes = np.linalg.eigh(correlation)
    np.testing.assert_allclose(numbers, normal @ axes @ np.diag(values**-0.5) @ axes.T, atol=2e-3)
    np.testing.assert_allclose(np.corrcoef(numbers.T), np.eye(3), atol=2e-3)
    assert all(np.corrcoef(numbers[:, k], normal[:, k])[0, 1] > 0.8 for k in range(3))


def test_numbers_are_the_same_in_mixed_precision(description, data):
    images = torch.tensor(data.store.images[:8]) / 127.5 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = description(images)
    assert torch.equal(mixed, description(images))


def test_images_beyond_all_others_have_finite_numbers(description):
    assert description(torch.stack([torch.full((3, 64, 64), value) for value in (-1.0, 1.0)])).isfinite().all()


class Told(nn.Module):
    """A discriminator that is told three numbers."""

    def __init__(self, num=3):
        super().__init__()
        self.layer = nn.Linear(3 * 64 * 64, 1 + num)

    def forward(self, images):
        return self.layer(images.flatten(1))


def module_of(description, **settings):
    adam = partial(torch.optim.Adam, lr=0.01)
    return GANModule(Generator(z_dim=5, hidden_dim=2), Told(), adam, adam, LOSS, description=description, **settings)


def test_both_networks_are_told_of_the_real_images(description, data):
    module = module_of(description)
    module.feed_from(data)
    module.prepare(data)
    images = torch.tensor(data.store.images[:4]) / 127.5 - 1
    told = module.told_of(images, torch.zeros(4, 2))
    assert torch.equal(told, description(images))
    noise = module.draw_noise(told)
    assert noise.shape == (4, 5)
    assert torch.equal(noise[:, 2:], told)
    layer = module.discriminator.layer
    assert isinstance(layer, nn.Linear)
    rows = layer.weight[0] + told / 3**0.5 @ layer.weight[1:]
    expected = (rows * images.flatten(1)).sum(dim=1) + layer.bias[0] + told / 3**0.5 @ layer.bias[1:]
    torch.testing.assert_close(module.discriminate(module.discriminator, images, told), expected, atol=1e-4, rtol=1e-4)


def test_afterwards_the_average_draws_descriptions_by_the_flow_of_the_data(description, data):
    module = module_of(description)
    module.feed_from(data)
    module.prepare(data)
    noise = module.typical_noise(6, torch.Generator().manual_seed(0))
    generator = module.ema_generator.eval()
    assert isinstance(generator, DescribedGenerator)
    told = torch.cat([noise[:, :2], generator.flow(noise[:, 2:])], dim=1)
    assert (told - noise).abs().max() > 0
    assert torch.equal(module(noise), generator.network(told))
    assert isinstance(module.generator, DescribedGenerator)
    trained = {id(weight) for weight in module.configure_optimizers()[0].param_groups[0]["params"]}
    assert not trained & {id(weight) for weight in module.generator.flow.parameters()}
    resumed = module_of(description)
    resumed.prepare(data, fresh=False)  # the checkpoint has the flow
    assert isinstance(resumed.generator, DescribedGenerator)
    assert torch.equal(resumed.generator.flow(noise[:, 2:]), noise[:, 2:])


def test_what_cannot_be_described_is_refused(description, data):
    with pytest.raises(ValueError, match="gan.description says what gan.condition says; keep one of them"):
        module_of(description, condition=["Smiling"])
    short = Description(description.section)
    short.names = ("a", "b", "c", "d", "e")
    with pytest.raises(ValueError, match="gan.description has 5 numbers, which must be fewer than .*z_dim=5"):
        module_of(short)
    tied = module_of(description, regularizers={"infogan": InfoGAN(lambda n_classes: Told(n_classes - 1), 3)})
    with pytest.raises(ValueError, match="infogan and description both give number 2 of the noise a meaning"):
        tied.prepare(data)


def test_outputs_that_the_data_do_not_tell_apart_are_refused(section, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    labels = np.array([[0, 0], [1, 1]], dtype=np.float32)
    splits = np.zeros(2, dtype=np.uint8)
    build_store(tmp_path / "two", lambda c: (images[c], labels[c]), splits, ("Smiling", "Male"), "noise", made={})
    message = "gan.description: in 2 training images the classifier's 3 outputs .* give it more images, at least 4, or"
    with pytest.raises(ValueError, match=message):
        Description(section).prepare(FaceData(root=tmp_path / "two", batch_size=2, max_images=2))


def test_a_classifier_of_one_attribute_describes(section, data):
    network = Classifier(n_classes=1, hidden_dim=2)
    alone = {key: value for key, value in section.items() if key != "regressor"}
    path = str(section["checkpoint"]).replace("classifier.safetensors", "alone.safetensors")
    save_weights(network, Path(path), {})
    alone |= {"network": {**section["network"], "n_classes": 1}, "checkpoint": path, "attributes": ["Smiling"]}
    described = Description(alone, layers=2, width=4, num_steps=20)
    described.prepare(data)
    numbers = described.of_all(data)
    assert numbers.shape == (NUM, 1)
    assert abs(numbers.mean()) < 0.1 and abs(numbers.std() - 1) < 0.1
    adam = partial(torch.optim.Adam, lr=0.01)
    module = GANModule(Generator(z_dim=5, hidden_dim=2), Told(1), adam, adam, LOSS, description=described)
    module.prepare(data)


@pytest.mark.parametrize(("key", "number", "least"), [("layers", 0, 1), ("width", 0, 1), ("num_steps", 10, 20)])
def test_a_flow_too_small_to_be_fitted_is_refused(section, key, number, least):
    with pytest.raises(ValueError, match=f"gan.description.{key}={number} must be .*{least}"):
        Description(section, **{key: number})


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5])
def test_a_flow_that_drops_all_or_less_than_nothing_is_refused(section, dropout):
    with pytest.raises(ValueError, match=f"gan.description.dropout={dropout} must be at least 0 and less than 1"):
        Description(section, dropout=dropout)
