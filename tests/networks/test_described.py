"""The flow that draws descriptions, and the generator that takes them, by independent formulas."""

import math

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from zsteer.networks.described import DescribedGenerator, Flow, described


def random_flow(num, layers):
    torch.manual_seed(0)
    flow = Flow(num, layers, width=8)
    for weight in flow.parameters():
        nn.init.normal_(weight, std=0.3)
    return flow


class Plain(nn.Module):
    """Images that are the noise itself."""

    z_dim = 12

    def forward(self, noise):
        return noise.view(-1, 3, 2, 2)


def test_a_new_flow_is_the_identity():
    noise = torch.randn(5, 7)
    assert torch.equal(Flow(7, layers=6, width=4)(noise), noise)


def test_a_flow_can_be_undone_and_says_how_it_changes_volumes():
    flow, noise = random_flow(7, 6).double(), torch.randn(5, 7, dtype=torch.float64)
    numbers = flow(noise)
    assert (numbers - noise).abs().mean() > 0.05
    found, log_volume = flow.inverse(numbers)
    torch.testing.assert_close(found, noise)
    for row, expected in zip(noise, log_volume, strict=True):
        jacobian = torch.func.jacrev(lambda z: flow(z[None])[0])(row)
        torch.testing.assert_close(-torch.linalg.slogdet(jacobian).logabsdet, expected)


@pytest.mark.parametrize("num", [1, 2, 5, 46])
def test_as_many_pairs_as_digits_have_every_number_depend_on_every_other(num):
    flow = random_flow(num, layers=2 * max(1, (num - 1).bit_length()) + 2)
    jacobian = torch.func.jacrev(lambda z: flow(z[None])[0])(torch.randn(num))
    assert (jacobian != 0).all()


def test_no_coupling_scales_by_more_than_e():
    flow = Flow(6, layers=1, width=4)
    nn.init.constant_(list(flow.parameters())[-1], 100.0)  # the last layer's, of scales and shifts
    numbers = flow(torch.ones(1, 6))[0]
    torch.testing.assert_close(numbers[1::2], torch.full((3,), math.e + 100))
    assert torch.equal(numbers[::2], torch.ones(3))


def test_the_last_numbers_pass_through_the_flow():
    generator = DescribedGenerator(Plain(), num=5, layers=4, width=8)
    generator.flow = random_flow(5, 4)
    noise = torch.randn(3, 12)
    images = generator(noise).flatten(1)
    assert torch.equal(images[:, :7], noise[:, :7])
    assert torch.equal(images[:, 7:], generator.flow(noise[:, 7:]))
    assert generator.z_dim == 12


def test_its_config_makes_it_again():
    network = {"_target_": "zsteer.networks.Generator", "z_dim": 9, "hidden_dim": 2}
    generator = DescribedGenerator(instantiate(network), num=4, layers=3, width=8)
    again = instantiate(generator.config(network))
    again.load_state_dict(generator.state_dict())
    noise = torch.randn(2, 9)
    assert torch.equal(again.eval()(noise), generator.eval()(noise))


def test_a_described_generator_stays_what_it_is():
    generator = described(Plain(), 5, 4, 8)
    assert isinstance(generator, DescribedGenerator)
    assert described(generator, 5, 6, 16) is generator
    with pytest.raises(ValueError, match=r"gan.description has 4 numbers, and generator.network.num=5; describe by"):
        described(generator, 4, 4, 8)
    with pytest.raises(ValueError, match="gan.description has 12 numbers, which must be fewer than .*z_dim=12"):
        described(Plain(), 12, 4, 8)
