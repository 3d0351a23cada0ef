import copy

import pytest
import torch
from places import GOLDEN
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations

from zsteer.files import BUNDLE
from zsteer.networks.combined import Conjunction
from zsteer.networks.dcgan import DCGANGenerator, Discriminator
from zsteer.networks.fingerprints import fingerprint
from zsteer.networks.inference import channels_last, copied, frozen, z_dim_of
from zsteer.networks.r3gan import R3GANDiscriminator
from zsteer.networks.residual import ResidualClassifier
from zsteer.networks.tutorial import Classifier, Generator


def shapes(network):
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def batch_norm(key, channels):
    vectors = {f"{key}.{name}": [channels] for name in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{key}.num_batches_tracked": []}


def convolution(key, *weight, bias):
    return {f"{key}.weight": list(weight), f"{key}.bias": [bias]}


def lively(network, seed=0):
    """The network with random weights and statistics, as after training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, generator=generator)
                nn.init.uniform_(module.running_var, 0.2, 3.0, generator=generator)
    return network


def noise(num, z_dim, dtype=torch.float32):
    return torch.randn(num, z_dim, generator=torch.Generator().manual_seed(1), dtype=dtype)


def images(num, dtype=torch.float32, size=64):
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(2), dtype=dtype) * 2 - 1


def test_generator_has_the_published_keys_and_shapes():
    z, h = 10, 4
    expected = {}
    for i, (channels_in, channels_out) in enumerate([(z, 8 * h), (8 * h, 4 * h), (4 * h, 2 * h), (2 * h, h)]):
        expected |= convolution(f"gen.{i}.0", channels_in, channels_out, 3, 3, bias=channels_out)
        expected |= batch_norm(f"gen.{i}.1", channels_out)
    expected |= convolution("gen.4.0", h, 3, 4, 4, bias=3)
    assert shapes(Generator(z_dim=z, hidden_dim=h)) == expected


def test_classifier_has_the_published_keys_and_shapes():
    k, h = 7, 4
    expected = {}
    for i, (channels_in, channels_out) in enumerate([(3, h), (h, 2 * h), (2 * h, 4 * h)]):
        expected |= convolution(f"classifier.{i}.0", channels_out, channels_in, 4, 4, bias=channels_out)
        expected |= batch_norm(f"classifier.{i}.1", channels_out)
    expected |= convolution("classifier.3.0", k, 4 * h, 4, 4, bias=k)
    assert shapes(Classifier(n_classes=k, hidden_dim=h)) == expected


def test_dcgan_generator_has_the_keys_and_shapes_of_pytorchs_example():
    z, h = 10, 4
    widths = [8 * h, 4 * h, 2 * h, h]
    expected = {"main.0.weight": [z, 8 * h, 4, 4]}
    for i, (width, following) in enumerate(zip(widths, [*widths[1:], 3], strict=True)):
        expected |= batch_norm(f"main.{3 * i + 1}", width)
        expected[f"main.{3 * i + 3}.weight"] = [width, following, 4, 4]
    assert shapes(DCGANGenerator(z_dim=z, hidden_dim=h)) == expected


@pytest.mark.parametrize("network, count", [(Generator(), 1_849_155), (Classifier(), 823_656)])
def test_tutorial_networks_have_the_published_number_of_parameters(network, count):
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_generator_blocks_have_the_published_sizes():
    network, sizes = Generator(z_dim=6, hidden_dim=2), []
    x = noise(2, 6)[:, :, None, None]
    for block in network.gen:
        x = block(x)
        sizes.append(tuple(x.shape[2:]))
    assert sizes == [(3, 3), (7, 7), (15, 15), (31, 31), (64, 64)]


def test_classifier_blocks_have_the_published_sizes():
    network, sizes = Classifier(hidden_dim=2), []
    x = images(2)
    for block in network.classifier:
        x = block(x)
        sizes.append(tuple(x.shape[2:]))
    assert sizes == [(31, 31), (14, 14), (4, 4), (1, 1)]


@pytest.mark.parametrize("kind", [Generator, DCGANGenerator])
def test_generators_map_noise_to_images_within_minus_one_and_one(kind):
    network = kind(z_dim=6, hidden_dim=2)
    generated = network(100 * noise(5, 6))
    assert generated.shape == (5, 3, 64, 64)
    assert generated.abs().max() <= 1
    assert generated.min() < 0 < generated.max()


@pytest.mark.parametrize("kind", [Generator, DCGANGenerator])
def test_generators_channels_follow_im_chan(kind):
    assert kind(z_dim=6, im_chan=1, hidden_dim=2)(noise(2, 6)).shape == (2, 1, 64, 64)


def test_discriminator_gives_one_logit_per_image():
    network = Discriminator(hidden_dim=2)
    last = network.disc[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    nn.init.constant_(last.bias, -300.0)  # a probability could not be below 0
    assert network(images(5)).shape == (5,)
    assert network(images(5)).max() < 0


def test_discriminator_scores_each_image_by_itself():
    network = Discriminator(hidden_dim=2).double()
    batch = images(4, torch.float64)
    torch.testing.assert_close(network(batch)[1:3], network(batch[1:3]))


@pytest.mark.parametrize("kind", [Classifier, ResidualClassifier])
@pytest.mark.parametrize("num", [1, 3])
def test_classifiers_give_one_logit_per_image_and_class(kind, num):
    assert kind(n_classes=7, hidden_dim=8).eval()(images(num)).shape == (num, 7)


@pytest.mark.parametrize(("size", "widths"), [(16, [8, 16]), (32, [8, 16, 32]), (128, [8, 16, 32, 64, 64])])
def test_the_judge_has_as_many_blocks_as_bring_its_images_down_to_4_pixels(size, widths):
    network = ResidualClassifier(n_classes=7, hidden_dim=8, size=size)
    x, found = images(2, size=size), []
    for layer in network.features:
        x = layer(x)
        found.append((x.shape[1], x.shape[2]))
    assert found == [(width, size >> halved) for halved, width in enumerate(widths, start=1)]
    assert found[-1][1] == 4
    assert network(images(2, size=size)).shape == (2, 7)


def test_the_judge_of_64_pixels_has_the_bundles_keys():
    assert ResidualClassifier(size=64).state_dict().keys() == load_file(BUNDLE / "judge.safetensors").keys()


def test_no_other_size_makes_a_judge():
    with pytest.raises(ValueError, match="network.size=100 must be one of 16, 32, 64, 128, 256, 512"):
        ResidualClassifier(size=100)


@pytest.mark.parametrize(
    ("network", "size", "taken"),
    [
        (Classifier(hidden_dim=2), 128, "58 to 81"),
        (Classifier(hidden_dim=2), 32, "58 to 81"),
        (Discriminator(hidden_dim=2), 128, "64 to 79"),
        (ResidualClassifier(hidden_dim=8), 128, "64"),
        (ResidualClassifier(hidden_dim=8, size=128), 64, "128"),
        (R3GANDiscriminator(widths=(8, 8, 8), blocks=1), 64, "16"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_networks_say_which_sizes_they_take(network, size, taken):
    with pytest.raises(ValueError, match=f"it takes images of {taken} pixels a side, not of {size}×{size}"):
        network(images(2, size=size))


def test_the_tutorials_classifier_takes_all_sizes_that_end_in_one_position():
    network = Classifier(n_classes=5, hidden_dim=2)
    for size in (58, 64, 81):
        assert network.classifier(images(2, size=size)).shape == network(images(2, size=size))[..., None, None].shape
    assert network.classifier(images(2, size=82)).shape[2:] == (2, 2)


def test_judge_has_no_layer_in_common_with_the_tutorials_classifier():
    kinds = [{type(m) for m in network.modules()} for network in (Classifier(hidden_dim=8), ResidualClassifier())]
    assert kinds[0] & kinds[1] == {nn.Sequential, nn.Conv2d}


def test_golden_networks_give_the_golden_logits():
    generator, classifier = Generator(hidden_dim=8).double(), Classifier(hidden_dim=8).double()
    generator.load_state_dict(torch.load(GOLDEN / "pretrained_celeba.pth", weights_only=True)["gen"])
    classifier.load_state_dict(torch.load(GOLDEN / "pretrained_classifier.pth", weights_only=True)["classifier"])
    history = load_file(GOLDEN / "history.safetensors")
    logits = classifier.eval()(generator.eval()(history["noise0"].double()))
    torch.testing.assert_close(logits, history["logits0"], rtol=1e-10, atol=1e-10)


def test_z_dim_of_a_generator_is_its_attribute():
    assert z_dim_of(Generator(z_dim=11, hidden_dim=2)) == 11


@pytest.mark.parametrize("z_dim", [None, 64.0, "64"])
def test_generator_without_an_integer_z_dim_is_an_error_that_names_it(z_dim):
    network = nn.Linear(3, 3)
    if z_dim is not None:
        network.z_dim = z_dim
    with pytest.raises(ValueError, match=r"generator\.network=Linear must have an integer attribute z_dim"):
        z_dim_of(network)


NETWORKS = [
    (lambda: Generator(z_dim=6, hidden_dim=4), lambda dtype: noise(3, 6, dtype)),
    (lambda: DCGANGenerator(z_dim=6, hidden_dim=4), lambda dtype: noise(3, 6, dtype)),
    (lambda: Classifier(n_classes=5, hidden_dim=4), lambda dtype: images(3, dtype)),
    (lambda: ResidualClassifier(n_classes=5, hidden_dim=8), lambda dtype: images(3, dtype)),
]
every_network = pytest.mark.parametrize("make, inputs", NETWORKS, ids=["tutorial", "dcgan", "classifier", "residual"])


@every_network
def test_frozen_equals_the_original_in_eval_mode_in_float64(make, inputs):
    network = lively(make())
    expected = copy.deepcopy(network).double().eval()(inputs(torch.float64))
    found = frozen(network, torch.float64)(inputs(torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@every_network
def test_frozen_equals_the_original_in_float32_to_its_precision(make, inputs):
    network = lively(make())
    expected = copy.deepcopy(network).eval()(inputs(torch.float32))
    found = frozen(network, torch.float32)(inputs(torch.float32))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@every_network
def test_frozen_leaves_the_original_untouched(make, inputs):
    network = lively(make()).train()
    before = copy.deepcopy(network.state_dict())
    copied = frozen(network, torch.float64)
    copied(inputs(torch.float64))
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])


@every_network
def test_frozen_passes_gradients_to_its_input_only(make, inputs):
    network = frozen(lively(make()), torch.float64)
    given = inputs(torch.float64).requires_grad_()
    network(given).sum().backward()
    assert given.grad is not None and given.grad.abs().max() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


@every_network
def test_frozen_is_in_eval_mode(make, inputs):
    network = frozen(make().train(), torch.float32)
    assert not any(module.training for module in network.modules() if not isinstance(module, nn.Identity))


@pytest.mark.parametrize("make", [case[0] for case in NETWORKS[:3]], ids=["tutorial", "dcgan", "classifier"])
def test_frozen_folds_batch_norm_into_the_convolutions(make):
    network = frozen(lively(make()), torch.float32)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    "dtype, precision", [(torch.bfloat16, 0.3), (torch.float32, 1e-3)], ids=["bfloat16", "float32"]
)
def test_frozen_has_the_type_asked_for(dtype, precision):
    network = lively(Generator(z_dim=6, hidden_dim=4))
    copied = frozen(network, dtype)
    assert {parameter.dtype for parameter in copied.parameters()} == {dtype}
    expected = network.double().eval()(noise(3, 6, torch.float64))
    assert (copied(noise(3, 6).to(dtype)).double() - expected).abs().mean() < precision


def test_frozen_keeps_batch_norm_that_has_no_statistics():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()).double()
    lively(network)
    expected = network.eval()(images(3, torch.float64, size=8))
    torch.testing.assert_close(frozen(network, torch.float64)(images(3, torch.float64, size=8)), expected)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)],
        [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)],
        [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)],
        [nn.Conv2d(3, 4, 3, groups=1, dilation=2), nn.BatchNorm2d(4, eps=0.3)],
        [nn.ConvTranspose2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4, affine=False)],
        [nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)],
        [nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)],
    ],
    ids=["norm first", "norm after ReLU", "two norms", "eps", "not affine", "groups", "transposed groups"],
)
def test_frozen_equals_other_arrangements_of_batch_norm(layers):
    network = nn.Sequential(*copy.deepcopy(layers)).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(3))
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_var, 0.2, 3.0, generator=torch.Generator().manual_seed(4))
            nn.init.normal_(module.running_mean, generator=torch.Generator().manual_seed(5))
    expected = copy.deepcopy(network).eval()(images(2, torch.float64, size=9))
    found = frozen(network, torch.float64)(images(2, torch.float64, size=9))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


NORMS = {
    "old weight": nn.utils.weight_norm,
    "weight": parametrizations.weight_norm,
    "old spectral": nn.utils.spectral_norm,
    "spectral": parametrizations.spectral_norm,
}


class SharedConvolution(nn.Module):
    """One convolution with two norms after it, and one norm outside of a Sequential."""

    def __init__(self):
        super().__init__()
        convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.one = nn.Sequential(convolution, nn.BatchNorm2d(3))
        self.two = nn.Sequential(convolution, nn.BatchNorm2d(3))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.one(x) + self.two(x))


def test_frozen_equals_a_network_that_shares_a_convolution():
    network = lively(SharedConvolution().double())
    expected = copy.deepcopy(network).eval()(images(2, torch.float64, size=8))
    torch.testing.assert_close(frozen(network, torch.float64)(images(2, torch.float64, size=8)), expected)


@pytest.mark.filterwarnings("ignore:.*_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NORMS)
def test_frozen_equals_a_normed_network(name):
    network = lively(nn.Sequential(NORMS[name](nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)).double())
    expected = copied(network).eval()(images(2, torch.float64, size=8))
    torch.testing.assert_close(frozen(network, torch.float64)(images(2, torch.float64, size=8)), expected)


class Ported(nn.Module):
    """Weights as ports of other frameworks' networks have them: of many dimensions, complex, whole numbers, views."""

    def __init__(self):
        super().__init__()
        self.z_dim = 6
        self.kernels = nn.Parameter(torch.randn(1, 3, 6, 3, 3))
        self.volume = nn.Conv3d(1, 1, 3, padding=1)
        self.six = nn.Parameter(torch.randn(1, 1, 1, 1, 1, 3))
        self.spectrum = nn.Parameter(torch.randn(3, 8, 5, dtype=torch.complex64))
        self.order = nn.Parameter(torch.tensor([2, 0, 1]), requires_grad=False)
        self.turned = nn.Parameter(torch.randn(8, 3).t())
        self.register_buffer("conjugate", torch.randn(5, dtype=torch.complex64).conj())

    def forward(self, noise):
        maps = noise[:, :, None, None].expand(-1, -1, 8, 8)
        images = nn.functional.conv2d(maps, self.kernels[0], padding=1)[:, self.order] * self.six[0, 0, 0, 0, 0, 0]
        images = torch.fft.irfft2(torch.fft.rfft2(images) * self.spectrum * self.conjugate, s=(8, 8))
        return self.volume(images[:, None])[:, 0] + self.turned[None, :, :, None]


@pytest.mark.parametrize("dtype, precision", [(torch.float64, 1e-4), (torch.float32, 0)])
def test_frozen_equals_a_network_with_weights_of_all_kinds(dtype, precision):
    network = channels_last(Ported())
    found = frozen(network, dtype)(noise(2, 6, dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), network(noise(2, 6)).detach(), rtol=precision, atol=precision)


def test_channels_last_is_the_layout_of_weights_of_four_dimensions_alone():
    network = nn.ModuleList([Ported(), nn.Conv2d(2, 4, 3)])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    mark = fingerprint(network)
    laid_out = channels_last(network).state_dict()
    assert laid_out["1.weight"].stride() == (18, 1, 6, 2)
    assert laid_out["0.kernels"].is_contiguous()
    assert all(torch.equal(tensor, before[name]) for name, tensor in laid_out.items())
    assert fingerprint(network) == mark


@pytest.mark.filterwarnings("ignore:.*_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NORMS)
def test_a_copy_of_a_normed_network_computes_the_same_and_learns_by_itself(name):
    network = nn.Sequential(NORMS[name](nn.Conv2d(3, 4, 3)), nn.Flatten(), NORMS[name](nn.Linear(144, 2))).eval()
    given = images(2, size=8)
    expected = network(given).detach()
    other = copied(network)
    assert torch.equal(other(given), expected)
    other(given).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert torch.equal(network(given), expected)
    assert not torch.allclose(other(given), expected)


def test_frozen_again_changes_nothing_more():
    network = lively(Generator(z_dim=6, hidden_dim=4))
    once = frozen(network, torch.float64)
    torch.testing.assert_close(
        frozen(once, torch.float64)(noise(3, 6, torch.float64)), once(noise(3, 6, torch.float64)), rtol=0, atol=0
    )


@pytest.mark.parametrize("any_of", [False, True])
def test_a_conjunction_adds_the_logit_of_all_or_any_of_independent_events(any_of):
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 4.0, 0.0], [200.0, 0.0, 300.0], [-200.0, 0.0, -300.0]])
    seen = Conjunction(nn.Flatten(), [0, 2], any_of)(logits[:, :, None, None])
    assert torch.equal(seen[:, :3], logits)
    one, other = logits[:2, 0].double().sigmoid(), logits[:2, 2].double().sigmoid()
    probability = one + other - one * other if any_of else one * other
    torch.testing.assert_close(seen[:2, 3].double().sigmoid(), probability, rtol=1e-6, atol=0)
    assert seen.isfinite().all()  # where a probability rounds to 0 or 1, too
    assert seen[2, 3] > 80
    assert seen[3, 3] < -80
