"""What a network is known by: its classes, settings and weights, whatever the release of torch or zsteer."""

import pytest
import torch
from torch import nn

from zsteer.networks.combined import Conjunction
from zsteer.networks.fingerprints import fingerprint
from zsteer.networks.tutorial import Classifier, Generator


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Classifier(hidden_dim=2)


def test_a_newer_torch_that_keeps_more_of_its_layers_changes_nothing(network, monkeypatch):
    before = fingerprint(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.__dict__["something_new"] = 3
    monkeypatch.setattr(nn.Conv2d, "extra_repr", lambda self: "written otherwise")
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert fingerprint(network) == before


def test_a_class_of_ours_may_move_to_another_file_but_not_change_its_name(network, monkeypatch):
    before = fingerprint(network)
    monkeypatch.setattr(Classifier, "__module__", "zsteer.elsewhere")
    assert fingerprint(network) == before
    other = type("Classifier2", (Classifier,), {"__module__": "zsteer.elsewhere"})
    network.__class__ = other
    assert fingerprint(network) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda network: setattr(network.classifier[0][0], "stride", (3, 3)),
        lambda network: setattr(network.classifier[0][1], "eps", 1e-3),
        lambda network: setattr(network.classifier[0][2], "negative_slope", 0.1),
        lambda network: network.classifier[0][1].running_mean.add_(1e-6),
    ],
)
def test_whatever_changes_the_outputs_changes_the_fingerprint(network, change):
    before = fingerprint(network)
    change(network)
    assert fingerprint(network) != before


def test_settings_of_ours_count(network):
    joint = [Conjunction(network, [0, 1], any_of=any_of) for any_of in (False, True)]
    assert fingerprint(joint[0]) != fingerprint(joint[1])
    assert fingerprint(Generator(hidden_dim=2)) != fingerprint(Generator(hidden_dim=2))  # other weights
