"""Networks as ONNX give what they give in PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn

from zsteer.networks import ResidualClassifier
from zsteer.pages.graphs import TOLERANCE, graph_of, outputs_of


def lively(network: nn.Module) -> nn.Module:
    """With statistics of batch norm that are not those of a new one."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network


def generator() -> nn.Module:
    layers = [nn.Unflatten(1, (8, 1, 1)), nn.ConvTranspose2d(8, 16, 4), nn.BatchNorm2d(16), nn.LeakyReLU(0.2)]
    return lively(nn.Sequential(*layers, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()))


def classifier() -> nn.Module:
    return ResidualClassifier(im_chan=3, n_classes=5, hidden_dim=8, size=16)


@pytest.mark.parametrize(("network", "shape"), [(generator, (4, 8)), (classifier, (4, 3, 16, 16))])
def test_a_graph_gives_what_the_network_gives(network, shape):
    torch.manual_seed(0)
    network = network().eval()
    graph = graph_of(network, torch.randn(shape), "generator")
    others = torch.randn(shape)
    with torch.no_grad():
        expected = network(others).numpy()
    assert np.abs(outputs_of(graph.data, others) - expected).max() < TOLERANCE
    assert len(graph.data) > 2 * sum(parameter.numel() for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())  # the network itself is left alone


def test_weights_are_float16_only_where_that_does_not_show():
    kept = {}
    for weight in (1.0, 1.0004):  # the second is no float16 number
        network = nn.Linear(32, 32)
        nn.init.constant_(network.weight, weight)
        graph = graph_of(network, torch.ones(2, 32), "judge")
        kept[graph.weights] = len(graph.data)
        assert graph.difference < TOLERANCE
    assert kept["float16"] < kept["float32"] - 32 * 32


class Other(nn.Module):
    """What ONNX has no word for, or another one each time."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: torch.linalg.eigvalsh(x.mT @ x)[None], "cannot be exported to ONNX: "),
        (lambda x: x + torch.randn_like(x), "gives numbers in ONNX that differ by"),
    ],
)
def test_what_onnx_cannot_do_is_refused_by_name(function, said):
    with pytest.raises(ValueError) as error:
        graph_of(Other(function), torch.ones(2, 4), "generator")
    assert str(error.value).startswith(f"generator.network=Other {said}") and "\n" not in str(error.value)
