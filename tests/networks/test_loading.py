"""Networks from their config groups, tried before use."""

import pytest
import torch
from omegaconf import OmegaConf
from places import GOLDEN
from torch import nn

from zsteer.data.attributes import CELEBA
from zsteer.networks.checkpoints import load_weights
from zsteer.networks.loading import load_classifier, load_network, try_generator
from zsteer.networks.tutorial import Classifier, Generator

IMAGES = torch.zeros(2, 3, 64, 64)


def section(**more):
    network = {"_target_": "zsteer.networks.Classifier", "n_classes": 40, "hidden_dim": 8}
    return OmegaConf.create({"network": network, "attributes": "celeba", **more})


def test_load_network_gives_the_checkpoints_weights_in_eval_mode():
    path = GOLDEN / "pretrained_classifier.pth"
    network = load_network(section(checkpoint=str(path), checkpoint_key="classifier"), "classifier")
    assert not network.training
    wanted = load_weights(Classifier(hidden_dim=8), path).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("more", [{}, {"checkpoint": None}, {"checkpoint": None, "checkpoint_key": None}])
def test_load_network_without_a_checkpoint_gives_new_weights(more):
    assert isinstance(load_network(section(**more), "classifier"), Classifier)


def test_load_network_refuses_what_is_no_network():
    with pytest.raises(ValueError, match=r"judge\.network=builtins\.dict must be a torch\.nn\.Module"):
        load_network(OmegaConf.create({"network": {"_target_": "builtins.dict"}}), "judge")


def test_a_classifier_comes_with_the_names_of_its_logits():
    assert load_classifier(section(), "classifier", IMAGES).names == CELEBA


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attributes": "imagenet"}, r"judge\.attributes='imagenet' must be 'celeba'"),
        (
            {"attributes": ["age", "smiling"]},
            r"judge\.network gives \[2, 40\] for 2 images.* 2 names of judge\.attributes",
        ),
    ],
)
def test_wrong_attributes_are_named(changed, said):
    with pytest.raises(ValueError, match=said):
        load_classifier(section(**changed), "judge", IMAGES)


def test_images_that_a_classifier_cannot_take_are_named():
    with pytest.raises(ValueError, match=r"classifier\.network cannot take images of shape \[2, 3, 8, 8\]"):
        load_classifier(section(), "classifier", torch.zeros(2, 3, 8, 8))


class Pair(nn.Module):
    z_dim = 3

    def forward(self, noise):
        return noise, noise


class Flat(nn.Module):
    z_dim = 3

    def forward(self, noise):
        return noise


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Pair(), "must return one tensor, not a tuple"),
        (Flat(), r"to images \[n, 3, H, W\], not to \[2, 3\]"),
        (nn.Identity(), "Identity must have an integer attribute z_dim"),
    ],
)
def test_what_is_no_generator_is_named(network, said):
    with pytest.raises(ValueError, match=f"generator.network.*{said}"):
        try_generator(network)


class Still(Generator):
    """A generator that computes without gradients."""

    @torch.no_grad()
    def forward(self, noise):
        return super().forward(noise)


class StillClassifier(Classifier):
    """A classifier whose logits have lost theirs."""

    def forward(self, images):
        return super().forward(images).detach()


def test_networks_that_shall_be_trained_have_to_compute_gradients():
    images = try_generator(Still(hidden_dim=2))
    assert not images.requires_grad
    with pytest.raises(ValueError, match="^generator.network computes without gradients, as under torch.no_grad"):
        try_generator(Still(hidden_dim=2), trained=True)
    assert not try_generator(Generator(hidden_dim=2), trained=True).requires_grad
    still = section()
    still.network._target_ = f"{__name__}.StillClassifier"
    assert load_classifier(still, "classifier", IMAGES).names == CELEBA
    with pytest.raises(ValueError, match="^classifier.network computes without gradients"):
        load_classifier(still, "classifier", IMAGES, trained=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_generator_is_tried_in_the_dtype_of_the_run(dtype):
    images = try_generator(Generator(hidden_dim=2), dtype)
    assert images.shape == (2, 3, 64, 64)
    assert images.dtype == dtype
