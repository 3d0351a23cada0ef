import pytest
import torch
from torch import nn

from zsteer.networks.inference import frozen
from zsteer.networks.sngan import DiscriminatorBlock, GeneratorBlock, SNGANDiscriminator, SNGANGenerator


def test_widths_are_mimicrys():
    generator, discriminator = SNGANGenerator(), SNGANDiscriminator()
    assert generator.linear.weight.shape == (16 * 1024, 128)
    shortcuts = [generator.get_submodule(f"blocks.{i}.shortcut.0") for i in range(len(generator.blocks))]
    assert [shortcut.out_channels for shortcut in shortcuts] == [512, 256, 128, 64]
    widths = [block.shortcut.out_channels for block in discriminator.blocks if isinstance(block, DiscriminatorBlock)]
    assert widths == [64, 128, 256, 512, 1024]


def test_networks_meet_the_protocols():
    generator, discriminator = SNGANGenerator(z_dim=10, hidden_dim=2), SNGANDiscriminator(hidden_dim=2)
    images = generator(100 * torch.randn(3, 10))
    assert images.shape == (3, 3, 64, 64)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (3,)


@pytest.mark.parametrize("spectral", [True, False])
def test_spectral_norm_bounds_each_layers_largest_singular_value(spectral):
    torch.manual_seed(0)
    network, images = SNGANDiscriminator(hidden_dim=4, spectral=spectral), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for _ in range(30):
            network(images)  # a power iteration each
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 5 * 3 + 1
    norms = torch.stack([torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2) for layer in layers])
    if spectral:
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0.05, atol=0)
    else:
        assert norms.max() > 1.2


def test_a_generator_block_doubles_and_a_discriminator_block_halves_the_resolution():
    x = torch.randn(2, 6, 8, 8)
    assert GeneratorBlock(6, 4)(x).shape == (2, 4, 16, 16)
    assert DiscriminatorBlock(6, 10)(x).shape == (2, 10, 4, 4)


def test_a_blocks_shortcut_may_convolve_before_or_after_it_resamples():
    x, up, down = torch.randn(2, 6, 8, 8), GeneratorBlock(6, 4), DiscriminatorBlock(6, 10)
    torch.testing.assert_close(up.shortcut(x), up.shortcut[0](up.shortcut[1](x)))
    pooled = nn.functional.avg_pool2d(down.shortcut(x), 2)
    torch.testing.assert_close(down(x) - nn.functional.avg_pool2d(down.body(x), 2), pooled)


def test_frozen_generator_equals_the_original():
    generator = SNGANGenerator(z_dim=6, hidden_dim=2).double()
    generator(torch.randn(32, 6).double())  # statistics
    noise = torch.randn(3, 6).double()
    torch.testing.assert_close(frozen(generator, torch.float64)(noise), generator.eval()(noise))
