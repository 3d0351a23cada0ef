"""On a CUDA device: networks, steering and training give what they give on the CPU, and take the same words."""

import json

import pytest
import torch
from places import GOLDEN_NETWORKS
from safetensors.torch import load_file

from zsteer.app import commands
from zsteer.app.composition import compose
from zsteer.data.faces import FaceData
from zsteer.networks.inference import frozen
from zsteer.networks.loading import load_networks
from zsteer.steering.session import Session

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # Of the runs on the CPU that are compared with.
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    # torch's, where a backward pass is the first to multiply matrices in its thread.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

TRAIN = [
    *("data.num_train=32", "data.num_val=16", "data.num_test=16", "max_images=32", "data.batch_size=8"),
    *("trainer=gpu", "trainer.precision=bf16-mixed", "data.on_device=true"),
    "trainer.log_every_n_steps=1",
]
GAN = ["generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4", "scores.num_samples=16"]


def steered(*words):
    """The history of three rows, from the words of `steer`."""
    cfg = compose("steer", [*GOLDEN_NETWORKS, "num_images=3", *words])
    session = Session(cfg)
    (history,) = session.steer([session.job(cfg)], progress_bar=False)
    session.check_finite(history)
    return history


@pytest.fixture
def held(monkeypatch):
    """The data that trainings hold, by the time that they are held."""
    seen = []
    original = FaceData._held_batches

    def spied(data):
        seen.append(original(data))
        return seen[-1]

    monkeypatch.setattr(FaceData, "_held_batches", spied)
    return seen


def trained(name, folder, *words):
    """The figures of a training and its weights, those in memory and those in its file."""
    where = (f"data.root={folder / 'data'}", f"run_folder={folder}")
    result = getattr(commands, name).perform(compose(name, [*TRAIN, *where, *words]), folder)
    return json.loads((folder / "metrics.json").read_text()), load_file(folder / f"{result.name}.safetensors")


def assert_trained_on_device(figures, weights, held):
    assert figures["num_images"] == 32
    assert all(weight.isfinite().all() for weight in weights.values())
    assert held
    assert all(tensor.is_cuda for batches in held for tensor in batches.held)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-2)])
def test_frozen_networks_give_what_they_give_on_the_cpu(dtype, tolerance):
    networks = load_networks(compose("steer", [*GOLDEN_NETWORKS]))
    inputs = torch.randn(4, 64, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for network in (networks.generator, networks.classifier.network):
        expected = frozen(network, dtype)(inputs)
        found = frozen(network, dtype, "cuda")(inputs.cuda())
        assert found.is_cuda
        # Convolutions of float32 keep ten bits of each factor where the device has TF32.
        torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)
        inputs = expected


@pytest.mark.parametrize("method", ["tutorial", "ascent", "penalty", "projected", "direction", "best_of"])
def test_steering_ends_where_it_ends_on_the_cpu(method):
    words = (f"method={method}", "num_steps=8", "seed=1", "trainer.precision=64-true")
    expected, found = (steered(*words, f"trainer={device}") for device in ("cpu", "gpu"))
    assert (found.noise[-1] != found.noise[0]).any(dim=1).all()
    assert found.noise[-1].device.type == "cpu"
    torch.testing.assert_close(torch.stack(found.noise), torch.stack(expected.noise), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), rtol=0, atol=1e-6)


def test_steering_in_bfloat16_starts_where_float32_does_and_climbs():
    exact, rounded = (
        steered("method=ascent", "penalty_weight=0", "trainer=gpu", f"trainer.precision={precision}")
        for precision in ("32-true", "bf16-mixed")
    )
    assert rounded.noise[-1].dtype == torch.float32
    assert torch.equal(rounded.noise[0], exact.noise[0])
    torch.testing.assert_close(rounded.logits[0], exact.logits[0], rtol=0.1, atol=0.1)
    smiling = [logits[:, 31] for logits in rounded.logits]
    assert (smiling[-1] > smiling[0]).all()


def test_a_judge_scores_what_the_device_made(tmp_path):
    words = ["num_steps=2", "num_images=2", "trainer=gpu", "trainer.precision=bf16-mixed", f"run_folder={tmp_path}"]
    figures = commands.steer.perform(compose("steer", words), tmp_path).metrics
    assert all(figures[name] is not None for name in ("gain_classifier", "gain_judge", "attribute_dependency"))
    assert (tmp_path / "steering.png").is_file()


def test_a_gan_trains_in_bfloat16_on_images_that_the_device_holds(tmp_path, held):
    figures, weights = trained("train_gan", tmp_path, *GAN)
    assert_trained_on_device(figures, weights, held)
    assert any(name.startswith("fid_judge") for name in figures)


def test_a_classifier_trains_in_bfloat16_on_images_that_the_device_holds(tmp_path, held):
    figures, weights = trained("train_classifier", tmp_path, "classifier.network.hidden_dim=4")
    assert_trained_on_device(figures, weights, held)
    assert 0 < figures["test_accuracy"] < 1


@pytest.mark.parametrize(
    "words",
    [
        ("gan_loss=wgan_gp", "gan.discriminator_steps=2"),
        ("gan.penalty_every=2", "gan.accumulate=2", "gan.clip_norm=1"),
        (
            "gan_loss=r3gan",
            "description=classifier",
            "gan.description.num_steps=20",
            "generator.network.z_dim=50",
            "data.num_train=64",
        ),
    ],
)
def test_captured_steps_train_as_steps_that_are_launched_one_by_one(tmp_path, words):
    words = (*GAN, *words, "max_images=96", "trainer.precision=64-true", f"data.root={tmp_path / 'data'}")
    (_, expected), (_, found) = (
        trained("train_gan", tmp_path / name, *words, f"gan.cuda_graphs={name}") for name in ("false", "true")
    )
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-7)
