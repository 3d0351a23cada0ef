"""What regularizers add to a generator's loss, by independent formulas."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zsteer.data.faces import FaceData
from zsteer.data.store import build_store
from zsteer.gan.regularizers import HessianPenalty, InfoGAN, OrthogonalJacobian, Supervised
from zsteer.networks.checkpoints import load_weights
from zsteer.networks.conditional import conditioned
from zsteer.networks.tutorial import Classifier, Generator

NUM = 24


@pytest.fixture
def data(tmp_path):
    """Noise for images, two labels and a number."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (NUM, 3, 64, 64), dtype=np.uint8)
    targets = np.stack([np.arange(NUM) % 2, np.arange(NUM) % 3 == 0, 150 + np.arange(NUM)], axis=1).astype(np.float32)
    names, splits = ("Smiling", "Male", "height"), np.zeros(NUM, dtype=np.uint8)
    build_store(tmp_path / "store", lambda chunk: (images[chunk], targets[chunk]), splits, names, "noise", made={})
    return FaceData(root=tmp_path / "store", batch_size=8, max_images=8)


def test_what_a_classifier_sees_is_compared_with_condition_and_tied_numbers(data, section):
    torch.manual_seed(1)
    generator = conditioned(Generator(z_dim=6, hidden_dim=2), ["Smiling", "Height"])  # however it is written
    regularizer = Supervised(section, indices={"Male": 1}, side_effects=0)
    regularizer.prepare(generator, data)
    noise = torch.randn(5, 6)
    noise[:, 4] = torch.tensor([1.0, 0, 1, 0, 0])
    images = generator(noise).detach().requires_grad_()
    term = regularizer(generator, noise, images)

    classifier, regressor = (
        load_weights(Classifier(n_classes=outputs, hidden_dim=2), part["checkpoint"]).eval()
        for outputs, part in ((2, section), (1, section["regressor"]))
    )
    with torch.no_grad():
        seen, height = classifier(images), regressor(images)
        known = classifier(torch.tensor(data.store.images[:]) / 127.5 - 1)[:, 1].numpy()
    shares = [(1 + math.erf(number / math.sqrt(2))) / 2 for number in noise[:, 1].tolist()]
    entropy = F.binary_cross_entropy_with_logits(seen[:, 0], noise[:, 4])
    error = (height[:, 0] - noise[:, 5]).square().mean()
    wanted = torch.tensor(np.quantile(known, shares), dtype=torch.float32)
    apart = (seen[:, 1] - wanted).abs() / known.std(ddof=1)
    smooth = torch.where(apart < 1, apart.square() / 2, apart - 0.5).mean()
    torch.testing.assert_close(term, entropy + error + smooth, rtol=1e-3, atol=1e-4)
    (gradient,) = torch.autograd.grad(term, images)
    assert gradient.abs().max() > 0


def test_what_else_changes_with_a_tied_number_counts(data, section):
    torch.manual_seed(2)
    generator, indices = Generator(z_dim=6, hidden_dim=2), {"Male": 1, "height": 4}
    noise = torch.randn(16, 6)
    images = generator(noise).detach()
    terms, given = [], []
    for side_effects in (0.0, 0.5):
        regularizer = Supervised(section, indices, side_effects=side_effects)
        regularizer.prepare(generator, data)
        hook = generator.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        terms.append(regularizer(generator, noise, images))
        hook.remove()
    (moved,) = given
    changed = (moved != noise).nonzero()
    assert changed[:, 0].tolist() == list(range(16))  # one in each image
    assert set(changed[:, 1].tolist()) == {1, 4}

    networks = [
        load_weights(Classifier(n_classes=outputs, hidden_dim=2), part["checkpoint"]).eval()
        for outputs, part in ((2, section), (1, section["regressor"]))
    ]
    with torch.no_grad():
        known, before, after = (
            torch.cat([network(batch) for network in networks], dim=1)  # Smiling, Male, height
            for batch in (torch.tensor(data.store.images[:]) / 127.5 - 1, images, generator(moved))
        )
    apart = ((after - before) / known.std(dim=0)).abs()
    smooth = torch.where(apart < 1, apart.square() / 2, apart - 0.5)
    for row, (_, number) in enumerate(changed.tolist()):
        smooth[row, 1 if number == 1 else 2] = 0
    torch.testing.assert_close(terms[1] - terms[0], 0.5 * smooth.sum(dim=1).mean(), rtol=1e-3, atol=1e-4)


def test_a_factor_is_told_and_seen_in_the_same_units(data, section):
    """The regressor's data had another mean and deviation than those that the generator is told by."""
    torch.manual_seed(1)
    generator = conditioned(Generator(z_dim=6, hidden_dim=2), ["Height"])
    weights = Path(section["regressor"]["checkpoint"])
    weights.with_suffix(".json").write_text(
        json.dumps({"config": {}, "figures": {"scales": {"height": [100.0, 20.0]}}})
    )
    regularizer = Supervised(section)
    regularizer.prepare(generator, data)
    weights.with_suffix(".json").unlink()
    noise = torch.randn(5, 6)
    images = generator(noise).detach()
    with torch.no_grad():
        seen = load_weights(Classifier(n_classes=1, hidden_dim=2), weights).eval()(images)[:, 0]
    mean, deviation = data.scales["height"]
    wanted = noise[:, 5] * deviation + mean
    expected = ((seen * 20 + 100 - wanted) / deviation).square().mean()
    torch.testing.assert_close(regularizer(generator, noise, images), expected, rtol=1e-3, atol=1e-4)


class Layer(nn.Module):
    """A layer of a generator that computes what it is told, beside a part that depends on a condition alone."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, noise):
        return self.function(noise)


class OneLayer(nn.Module):
    """A generator of two numbers of noise, whose features are those of its layer."""

    z_dim = 2

    def __init__(self, function):
        super().__init__()
        self.layer = Layer(function)

    def forward(self, noise):
        return self.layer(noise)


HESSIANS = torch.tensor([[[0.5, 0.7], [0.7, -2.0]], [[3.0, -0.2], [-0.2, 1.0]]], dtype=torch.float64)
JACOBIAN = torch.tensor([[1.0, 2.0], [-0.5, 0.25], [0.0, 3.0]], dtype=torch.float64)


def quadratic(noise):
    """½ zᵀHz + z_0 for each Hessian."""
    return torch.einsum("ni,kij,nj->nk", noise, HESSIANS, noise) / 2 + noise[:, :1]


def linear(noise):
    """Jz + 1."""
    return noise @ JACOBIAN.T + 1


def test_the_hessian_penalty_of_a_quadratic_map_is_its_off_diagonal_part():
    torch.manual_seed(0)
    generator = OneLayer(quadratic)
    noise = torch.randn(1, 2, dtype=torch.float64)
    # vᵀHv = H_00 + H_11 + 2 H_01 v_0 v_1, whose variance is 4 H_01² = 2 Σ_{i≠j} H_ij².
    many = HessianPenalty(num_vectors=20_000, epsilon=0.1, layers=["layer"])(generator, noise, noise)
    torch.testing.assert_close(many, torch.tensor(4 * 0.7**2, dtype=torch.float64), rtol=1e-3, atol=0)
    # Of two vectors it is 0, or half the square of the distance between both values, 4 H_01.
    two = HessianPenalty(num_vectors=2, epsilon=0.1, layers=["layer"])
    values = {round(two(generator, noise, noise).item(), 6) for _ in range(20)}
    assert values == {0.0, round((4 * 0.7) ** 2 / 2, 6)}
    assert HessianPenalty(layers=["layer"])(OneLayer(linear), noise, noise) < 1e-20


@pytest.mark.parametrize("normalised", [True, False])
def test_the_orthogonal_jacobian_of_a_linear_map_is_the_off_diagonal_part_of_its_square(normalised):
    torch.manual_seed(0)
    generator, noise = OneLayer(linear), torch.randn(3, 2, dtype=torch.float64)
    # ‖Jv‖² = ‖J_0‖² + ‖J_1‖² + 2 J_0ᵀJ_1 v_0 v_1, whose variance is 4 (J_0ᵀJ_1)².
    product = (JACOBIAN[:, 0] @ JACOBIAN[:, 1]).item()
    wanted = 4 * product**2 / (JACOBIAN.square().sum().item() ** 2 if normalised else 1)
    penalty = OrthogonalJacobian(num_vectors=20_000, epsilon=0.1, layers=["layer"], normalised=normalised)
    torch.testing.assert_close(penalty(generator, noise, noise), torch.tensor(wanted).double(), rtol=0.05, atol=0)
    noise.requires_grad_()
    still = penalty(OneLayer(lambda z: 0 * z), noise, noise)
    assert still == 0 and torch.autograd.grad(still, noise)[0].isfinite().all()
    larger = penalty(OneLayer(lambda z: 10 * linear(z)), noise, noise).item()
    assert larger == pytest.approx(wanted if normalised else 10**4 * wanted, rel=0.05)


@pytest.mark.parametrize("kind", [HessianPenalty, OrthogonalJacobian])
def test_penalties_of_a_generator_leave_its_statistics_and_its_condition_alone(kind, data):
    torch.manual_seed(0)
    network = Generator(z_dim=6, hidden_dim=2)
    generator = conditioned(network, ["Smiling"]).train()
    before = {name: buffer.clone() for name, buffer in generator.named_buffers()}
    penalty = kind()
    penalty.prepare(generator, data)
    seen = []
    generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    noise = torch.tensor([0.0, 0, 0, 0, 0, 0.5]).repeat(4, 1)
    term = penalty(generator, noise, torch.zeros(4, 3, 64, 64))
    term.backward()
    gradient = next(network.parameters()).grad
    assert term > 0 and gradient is not None and gradient.abs().max() > 0
    assert all(layer.training for layer in generator.modules())
    assert all(torch.equal(before[name], buffer) for name, buffer in generator.named_buffers())
    assert (seen[0][:4, :5] == 0).all() and seen[0][4:, :5].abs().min() > 0
    assert (seen[0][:, 5] == 0.5).all()


@pytest.mark.parametrize("kind", [HessianPenalty, OrthogonalJacobian])
def test_penalties_keep_their_digits_in_mixed_precision(kind):
    torch.manual_seed(0)
    generator, noise = Generator(z_dim=6, hidden_dim=4), torch.randn(4, 6)
    terms = []
    for mixed in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            terms.append(kind()(generator, noise, torch.zeros(4, 3, 64, 64)))
    torch.testing.assert_close(terms[1], terms[0])


@pytest.mark.parametrize("kind", [HessianPenalty, OrthogonalJacobian])
def test_layers_that_a_generator_lacks_are_refused(kind, data):
    with pytest.raises(
        ValueError, match=r"layers=\[body\]: generator.network has no such layer; name some of its modules"
    ):
        kind(layers=["body"]).prepare(Generator(hidden_dim=2), data)
    with pytest.raises(ValueError, match=r"layers=null: generator.network has no such layer"):
        kind().prepare(OneLayer(linear), data)


class Reader(nn.Module):
    """A head that says what it is told, whatever the image."""

    def __init__(self, n_classes):
        super().__init__()
        self.n_classes = n_classes
        self.said = torch.zeros(1, n_classes)

    def forward(self, images):
        return self.said.expand(len(images), -1)


def test_infogan_is_the_cross_entropy_of_a_category_and_of_a_gaussian(data):
    noise = torch.tensor([[0.3, -1.0, 2.0, 0.1, 5.0], [-2.0, 3.0, 0.0, 0.5, 5.0]])
    images, generator = torch.zeros(2, 3, 64, 64), Generator(z_dim=5, hidden_dim=2)
    categories = InfoGAN(Reader, num_gaussian=0, categories=[3, 2])
    assert categories.head.n_classes == 5
    # The first code is 2 and then 1, the second 1 both times; a head that knows nothing leaves H(c) = log 3 + log 2.
    torch.testing.assert_close(categories(generator, noise, images), torch.tensor(math.log(3) + math.log(2)))
    categories.head.said = torch.tensor([[0.0, 1.0, 2.0, 0.0, 50.0]])
    entropy = math.log(1 + math.e + math.e**2) - 1.5
    torch.testing.assert_close(categories(generator, noise, images), torch.tensor(entropy))
    gaussian = InfoGAN(Reader, num_gaussian=1, categories=[])
    gaussian.head.said = torch.tensor([[0.5, math.log(4.0)]])
    wanted = [0.5 * (math.log(2 * math.pi * 4) + (code - 0.5) ** 2 / 4) for code in (0.3, -2.0)]
    torch.testing.assert_close(gaussian(generator, noise, images), torch.tensor(sum(wanted) / 2))
    with pytest.raises(ValueError, match="infogan has 5 codes, which must be at most the 4 numbers of the noise"):
        categories.prepare(Generator(z_dim=4, hidden_dim=2), data)
    with pytest.raises(ValueError, match="infogan has no codes; give num_gaussian or categories"):
        InfoGAN(Reader, num_gaussian=0)
    with pytest.raises(ValueError, match="infogan.categories=1 must be a whole number, 2 or more"):
        InfoGAN(Reader, categories=[1])


@pytest.mark.parametrize(
    ("condition", "settings", "said"),
    [
        ((), {"indices": {}}, "regularizer=supervised has nothing to supervise; give gan.condition"),
        ((), {"indices": {"Male": 6}}, "gan.regularizers.supervised.indices.Male=6 must be below 6"),
        (["Smiling"], {"indices": {"Male": 5}}, "gan.regularizers.supervised.indices.Male=5 must be below 5"),
        (["Male"], {"indices": {"male": 1}}, "indices.Male=1: gan.condition tells the generator of Male; keep one"),
        ((), {"indices": {"Male": 1}, "side_effects": -1}, "supervised.side_effects=-1 must be a finite number, 0 or"),
        ((), {"indices": {"Male": -1}}, "indices.Male=-1 must be a whole number, 0 or more"),
        ((), {"indices": {"Male": 1, "Smiling": 1}}, "must give each attribute a number of its own"),
        ((), {"indices": {"Mall": 1}}, "supervised.indices='Mall' is not an attribute of the classifier; did you"),
    ],
)
def test_what_cannot_be_supervised_is_refused(data, section, condition, settings, said):
    with pytest.raises(ValueError) as error:
        Supervised(section, **settings).prepare(conditioned(Generator(z_dim=6, hidden_dim=2), condition), data)
    assert said in str(error.value)
