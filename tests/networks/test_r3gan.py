"""R3GAN's networks against the figures of the paper and their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zsteer.networks.inference import frozen
from zsteer.networks.r3gan import Block, Downsample, R3GANDiscriminator, R3GANGenerator, Upsample

SMALL = {"widths": (16, 16, 16, 8, 8), "blocks": 1}


@pytest.mark.parametrize(
    ("kind", "inputs", "millions"),
    [(R3GANGenerator, (1, 64), 22.43), (R3GANDiscriminator, (1, 3, 64, 64), 22.38)],
)
def test_full_width_has_the_published_parameters_and_arithmetic(kind, inputs, millions):
    network, given = kind(), torch.zeros(inputs)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(given)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert counter.get_total_flops() / 2e9 == pytest.approx(13.06, abs=0.015)


def test_width_scales_all_stages():
    narrow = R3GANGenerator(width=1 / 16)
    assert narrow.basis.shape == (48, 4, 4)
    assert narrow(torch.randn(2, 64)).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(("widths", "width"), [((100, 64), 1.0), ((64, 64), 0.1), ((), 1.0)])
def test_widths_without_whole_groups_are_refused(widths, width):
    with pytest.raises(ValueError, match=r"network.widths=.*network.width=.* must be multiples of 8"):
        R3GANGenerator(widths=widths, width=width)


def test_networks_meet_the_protocols():
    generator, discriminator = R3GANGenerator(**SMALL), R3GANDiscriminator(**SMALL)
    images = generator(torch.randn(3, 64))
    assert images.shape == (3, 3, 64, 64)
    assert discriminator(images).shape == (3,)


def test_a_block_starts_as_the_identity_and_its_convolutions_scaled():
    block, x = Block(64, num_blocks=10), torch.randn(2, 64, 8, 8)
    assert torch.equal(block(x), x)
    first, second = block.layers[0], block.layers[2]
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
    gain = math.sqrt(2 / 1.04) * 10**-0.25
    assert first.weight.std().item() == pytest.approx(gain / math.sqrt(64), rel=0.05)
    assert second.weight.std().item() == pytest.approx(gain / math.sqrt(16 * 9), rel=0.05)
    assert second.groups == 8  # 128 channels in groups of 16
    assert first.bias is not None and second.bias is not None
    assert not first.bias.any() and not second.bias.any() and block.layers[4].bias is None


def test_no_layer_normalises_attends_or_saturates():
    kinds = {type(m) for net in (R3GANGenerator(**SMALL), R3GANDiscriminator(**SMALL)) for m in net.modules()}
    leaves = {nn.Conv2d, nn.Linear, nn.LeakyReLU, nn.Flatten, Upsample, Downsample}
    assert kinds == leaves | {nn.Sequential, Block, R3GANGenerator, R3GANDiscriminator}


def test_layers_outside_of_blocks_start_at_gain_one():
    torch.manual_seed(0)
    generator, discriminator = R3GANGenerator(widths=(256, 64)), R3GANDiscriminator(widths=(256, 64))
    first, last = generator.linear, discriminator.coarse[-3]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Conv2d)
    assert first.weight.std().item() == pytest.approx(1 / math.sqrt(64), rel=0.05)
    assert last.weight.std().item() == pytest.approx(1 / 4, rel=0.05)  # depthwise, 4×4
    assert first.bias is None and last.bias is None


def test_upsampling_keeps_pixels_and_puts_their_means_between():
    x = torch.tensor([1.0, 3.0, 7.0])[None, None, None].expand(1, 2, 3, 3).clone()
    rows = Upsample()(x)[0, 0]
    assert rows.shape == (6, 6)
    assert torch.equal(rows[0], torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0, 3.5]))


def test_downsampling_filters_before_it_drops():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    padded = F.pad(x, (1, 1, 1, 1))[0, 0]
    expected = torch.stack(
        [torch.stack([(padded[i : i + 3, j : j + 3] * torch.outer(taps, taps)).sum() for j in (0, 2)]) for i in (0, 2)]
    )
    torch.testing.assert_close(Downsample()(x)[0, 0], expected)


def test_frozen_generator_equals_the_original():
    generator = R3GANGenerator(**SMALL)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.1)
    noise = torch.randn(3, 64)
    torch.testing.assert_close(frozen(generator, torch.float32)(noise), generator(noise), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "inputs"), [(R3GANGenerator, (2, 64)), (R3GANDiscriminator, (2, 3, 64, 64))])
def test_under_bfloat16_only_4x4_stays_in_full_precision(kind, inputs):
    network, seen = kind(**SMALL), set()

    def look(layer, _, output):
        if isinstance(layer, Block):
            seen.add((output.shape[-1], output.dtype))

    for layer in network.modules():
        layer.register_forward_hook(look)
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(inputs)).sum().backward()
    lower = {(size, torch.bfloat16) for size in (8, 16, 32, 64)}
    assert seen == {(4, torch.float32), *lower}


def test_a_frozen_bfloat16_generator_computes_in_it_throughout():
    generator = frozen(R3GANGenerator(**SMALL), torch.bfloat16)
    assert generator(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
