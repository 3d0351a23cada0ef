"""Directions: on linear logits and linear first layers the right answer is known in closed form."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zsteer.networks.tutorial import Classifier, Generator
from zsteer.steering.directions import boundaries, find_directions, first_layer, ganspace, mean_gradients, nearest, sefa
from zsteer.steering.reference import reference_noise


class Linear(nn.Module):
    """A generator whose first layer is linear."""

    def __init__(self, weight):
        super().__init__()
        self.z_dim = weight.shape[1]
        self.first = nn.Linear(weight.shape[1], weight.shape[0])
        self.first.weight.data = weight

    def forward(self, noise):
        return self.first(noise)


@pytest.fixture
def slopes():
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


def noise_of(num=2048):
    return torch.randn(num, 6, generator=torch.Generator().manual_seed(1))


def test_the_mean_gradient_of_linear_logits_is_their_slope_in_sigma(slopes):
    noise = noise_of()
    logits = noise @ slopes.T + 3
    found = mean_gradients(noise, logits)
    torch.testing.assert_close(found, slopes / logits.std(dim=0)[:, None], rtol=1e-4, atol=1e-5)


def test_the_mean_gradient_of_curved_logits_is_the_mean_of_their_gradients(slopes):
    noise = noise_of(200_000)
    inner = noise @ slopes.T
    logits = inner.tanh()
    mean = (1 - logits.square()).mean(dim=0)[:, None] * slopes
    found = mean_gradients(noise, logits) * logits.std(dim=0)[:, None]
    torch.testing.assert_close(found, mean, rtol=0, atol=0.01)


def test_a_logit_that_never_varies_has_no_direction(slopes):
    logits = torch.cat([noise_of() @ slopes.T, torch.ones(2048, 1)], dim=1)
    assert mean_gradients(noise_of(), logits)[3].abs().max() == 0


def test_boundaries_are_normal_to_where_the_logit_changes_sign(slopes):
    noise = noise_of()
    normals = boundaries(noise, noise @ slopes.T + 0.5)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(3))
    assert torch.cosine_similarity(normals, slopes).min() > 0.99


@pytest.mark.parametrize("transposed", [False, True])
def test_sefa_gives_the_axes_that_the_first_layer_stretches_most(transposed):
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))
    weight = torch.diag(torch.tensor([6.0, 5, 4, 3, 2, 1])) @ turn
    generator = Linear(weight)
    if transposed:
        generator.add_module("first", nn.ConvTranspose2d(6, 3, kernel_size=(1, 2)))
        generator.first.weight.data = weight.T.reshape(6, 3, 1, 2)
    components = sefa(generator)
    torch.testing.assert_close((components * turn).sum(dim=1).abs(), torch.ones(6), rtol=0, atol=1e-4)


def test_ganspace_gives_the_axes_along_which_activations_vary_most():
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))
    generator = Linear(torch.diag(torch.tensor([60.0, 30, 15, 8, 4, 2])) @ turn)
    components = ganspace(generator, noise_of())
    assert torch.cosine_similarity(components, turn).abs().min() > 0.95


def test_an_attributes_component_is_the_one_that_raises_it_most():
    components = torch.eye(3)
    slopes = torch.tensor([[0.1, -0.5, 0.2], [0.3, 0.0, 0.0]])
    torch.testing.assert_close(nearest(components, slopes), torch.tensor([[0.0, -0.5, 0.0], [0.3, 0.0, 0.0]]))


@pytest.mark.parametrize("source", ["gradient", "boundary", "sefa", "ganspace", "axis", "random"])
def test_every_source_points_to_where_the_attribute_is_present(source):
    generator, classifier = Generator(hidden_dim=4).eval(), Classifier(hidden_dim=4).eval()
    noise = reference_noise(generator)
    with torch.no_grad():
        logits = torch.cat([classifier(generator(z)) for z in noise.split(256)])
    directions = find_directions(source, generator, logits)
    assert directions.shape == (40, 64)
    rise = (mean_gradients(noise, logits) * directions).sum(dim=1)
    assert rise.min() >= 0


def test_an_axis_is_a_single_number_of_the_noise(slopes):
    generator = Linear(torch.eye(6))
    directions = find_directions("axis", generator, reference_noise(generator) @ slopes.T)
    sigma = slopes.norm(dim=1, keepdim=True)
    largest = slopes.abs().argmax(dim=1, keepdim=True)
    expected = torch.zeros_like(slopes).scatter(1, largest, (slopes / sigma).gather(1, largest))
    torch.testing.assert_close(directions, expected, rtol=0.1, atol=1e-6)


def test_directions_of_a_file_are_checked(tmp_path, slopes):
    generator, path = Linear(torch.eye(6)), tmp_path / "found.safetensors"
    noise = reference_noise(generator)
    save_file({"directions": slopes}, path)
    assert torch.equal(find_directions(str(path), generator, noise @ slopes.T), slopes)
    with pytest.raises(ValueError, match=r"shape \[3, 6\]; it must be \[2, 6\]"):
        find_directions(str(path), generator, (noise @ slopes.T)[:, :2])
    save_file({"directions": slopes.clone().fill_(torch.nan)}, path)
    with pytest.raises(ValueError, match="has NaN or infinite values"):
        find_directions(str(path), generator, noise @ slopes.T)
    save_file({"others": slopes}, path)
    with pytest.raises(ValueError, match="no .safetensors file with a tensor 'directions'"):
        find_directions(str(path), generator, noise @ slopes.T)


def test_a_generator_without_a_first_layer_is_refused_with_what_works():
    class Own(nn.Module):
        z_dim = 5

        def forward(self, noise):
            return noise

    with pytest.raises(ValueError, match="use gradient or boundary"):
        first_layer(Own())
