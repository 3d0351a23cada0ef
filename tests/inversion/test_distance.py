"""Distances are 1 between two random samples, and what two formulas say of the same images agrees."""

import pytest
import torch
from torch import nn
from torch.nn.functional import l1_loss

from zsteer.inversion.distance import Distance, FeatureSpace
from zsteer.networks.inference import pooled_features

SAMPLES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 2))
    return layers.requires_grad_(False)


@pytest.fixture
def distance(classifier):
    return Distance.over(SAMPLES, FeatureSpace.over(SAMPLES, classifier, "classifier"), feature_weight=0.5)


def test_two_samples_are_as_far_apart_as_the_weights_say_on_average(distance):
    table = distance.table(SAMPLES, SAMPLES, distance.space.look(SAMPLES)[0])
    apart = table[~torch.eye(len(SAMPLES), dtype=torch.bool)]
    assert apart.mean().item() == pytest.approx(1 + 0.5, rel=1e-5)
    assert table.diagonal().abs().max().item() < 1e-3  # cdist's rounding


def test_a_pair_is_what_the_formula_says(distance, classifier):
    one, other = SAMPLES[:1], SAMPLES[1:2]
    features = [pooled_features(classifier, images)[0] for images in (one, other)]
    pixels = [l1_loss(SAMPLES[i], SAMPLES[j]) for i in range(12) for j in range(i)]
    expected = l1_loss(one, other) / torch.stack(pixels).mean()
    expected += 0.5 * (features[0] - features[1]).square().sum().sqrt() / distance.space.scale
    assert distance.pairs(one, other, features[1]).item() == pytest.approx(expected.item(), rel=1e-5)


def test_pairs_and_table_agree(distance):
    features = distance.space.look(SAMPLES[4:8])[0]
    pairs = distance.pairs(SAMPLES[:4], SAMPLES[4:8], features)
    table = distance.table(SAMPLES[:4], SAMPLES[4:8], features)
    torch.testing.assert_close(pairs, table.diagonal(), rtol=1e-4, atol=1e-5)


def test_networks_for_which_all_images_are_the_same_are_refused(classifier, distance):
    same = SAMPLES[:1].expand(4, -1, -1, -1)
    with pytest.raises(ValueError, match="^classifier.network sees no difference between this generator's images"):
        FeatureSpace.over(same, classifier, "classifier")
    with pytest.raises(ValueError, match="^generator.network gives the same image for all noise .*; use another$"):
        Distance.over(same, distance.space, 1.0)
    with pytest.raises(ValueError, match="or NaN"):
        Distance.over(SAMPLES * torch.nan, distance.space, 1.0)


def test_a_classifier_without_feature_maps_is_named_by_its_role():
    with pytest.raises(ValueError, match="^classifier.network=Sequential has no feature map .*use another classifier"):
        FeatureSpace.over(SAMPLES, nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), "classifier")
