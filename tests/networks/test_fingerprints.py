"""What a network is known by: its classes, settings and weights, whatever the release of torch or zsteer."""

import re
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torchvision.transforms import Normalize, Resize

from zsteer.networks import fingerprints
from zsteer.networks.checkpoints import load_weights, save_weights
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


def test_fingerprint_is_the_same_after_saving_and_loading(tmp_path, network):
    save_weights(network, tmp_path / "c.safetensors", {})
    assert fingerprint(load_weights(Classifier(hidden_dim=2), tmp_path / "c.safetensors")) == fingerprint(network)
    assert re.fullmatch("[0-9a-f]{16}", fingerprint(network))


@pytest.mark.parametrize("name", ["classifier.0.0.weight", "classifier.3.0.bias", "classifier.2.1.running_var"])
def test_fingerprint_changes_with_every_tensor(name, network):
    before = fingerprint(network)
    network.state_dict()[name].view(-1)[-1] += 1e-6
    assert fingerprint(network) != before


def test_fingerprint_does_not_depend_on_memory_format(network):
    before = fingerprint(network)
    assert fingerprint(network.to(memory_format=torch.channels_last)) == before


def test_fingerprint_changes_with_the_structure_around_the_same_weights():
    layers = [nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3, stride=2)]
    layers[1].load_state_dict(layers[0].state_dict())
    assert fingerprint(layers[0]) != fingerprint(layers[1])


def test_fingerprint_of_a_foreign_network_changes_with_its_source(monkeypatch):
    network = type("Net", (nn.Module,), {"__module__": "foreign"})()
    monkeypatch.setitem(sys.modules, "foreign", sys)
    prints = []
    for source in ("return x", "return -x", "return x"):
        monkeypatch.setattr(fingerprints.inspect, "getsource", lambda module, source=source: source)
        prints.append(fingerprint(network))
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize(
    "settings",
    [
        (0.5, 0.7),
        (np.float32(0.5), np.float32(0.7)),
        ([1, 2], [1, 3], OmegaConf.create([1, 4])),
        ({"a": 1}, {"a": 2}),
        (torch.zeros(2), torch.ones(2), torch.ones(3), np.ones(3)),
        (torch.float32, torch.bfloat16),
        (torch.relu, torch.sigmoid),
        ({1, 2}, {1, 3}),
    ],
)
def test_fingerprint_changes_with_a_setting_that_is_no_weight(network, settings, monkeypatch):
    before = [fingerprint(network)]
    for value in settings:
        monkeypatch.setattr(network, "truncation", value, raising=False)
        before.append(fingerprint(network))
        assert fingerprint(network) == before[-1]
    assert len(set(before)) == len(before)


@pytest.mark.parametrize("make", [object, lambda: [object()], lambda: {"a": object()}, lambda: np.array([object()])])
def test_fingerprint_does_not_depend_on_where_in_memory_something_is(network, make, monkeypatch):
    prints = set()
    for value in (make(), make()):
        monkeypatch.setattr(network, "helper", value, raising=False)
        prints.add(fingerprint(network))
    assert len(prints) == 1


def test_fingerprint_changes_with_how_images_are_normalised(network):
    ways = [Normalize([0.0] * 3, [1.0] * 3), Normalize([0.5] * 3, [0.1] * 3), Resize([16, 16]), Resize([64, 64])]
    assert len({fingerprint(nn.Sequential(way, network)) for way in ways}) == len(ways)
