"""Distances of samples from data, against their formulas."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torchmetrics.image.kid import poly_mmd

from zsteer.gan import fidelity
from zsteer.gan.fidelity import (
    Embedding,
    frechet_distance,
    inception_embedding,
    judge_embedding,
    kernel_distance,
    precision_recall,
    samples_of,
)
from zsteer.networks.inference import pooled_features
from zsteer.networks.residual import ResidualClassifier
from zsteer.networks.tutorial import Classifier
from zsteer.pictures import to_uint8


def features(num, seed, shift=0.0, dims=5):
    return torch.randn(num, dims, generator=torch.Generator().manual_seed(seed)) + shift


def test_frechet_distance_is_that_of_two_normal_distributions():
    real, fake = features(60, 0), 1.5 * features(40, 1, 0.3)
    a, b = real.double().numpy(), fake.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_the_mean_over_equal_parts():
    real, fake = features(50, 0), features(20, 1, 1.0)
    expected = (poly_mmd(real[:20].double(), fake.double()) + poly_mmd(real[20:40].double(), fake.double())) / 2
    assert kernel_distance(real, fake) == pytest.approx(expected.item())
    assert kernel_distance(features(3000, 2), features(3000, 3)) == pytest.approx(0, abs=0.01)


def test_precision_and_recall_count_points_within_the_third_neighbours_distance():
    real, fake = features(30, 0, dims=2), features(25, 1, 0.8, dims=2)

    def share(points, manifold):
        inside = 0
        for point in points.tolist():
            for other in manifold.tolist():
                radius = sorted(np.hypot(other[0] - o[0], other[1] - o[1]) for o in manifold.tolist())[3]
                if np.hypot(point[0] - other[0], point[1] - other[1]) <= radius:
                    inside += 1
                    break
        return inside / len(points)

    assert precision_recall(real, fake) == pytest.approx((share(fake, real), share(real, fake)))


def test_a_narrow_generator_is_precise_and_recalls_little():
    real, fake = features(500, 0), 0.1 * features(500, 1)
    precision, recall = precision_recall(real, fake)
    assert precision > 0.99 and recall < 0.3


@pytest.mark.parametrize("network", [ResidualClassifier(hidden_dim=8), Classifier(hidden_dim=4)])
def test_judges_features_are_its_last_map_averaged(network):
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    network.eval()
    last = network.features if isinstance(network, ResidualClassifier) else network.classifier[:3]
    found, logits = pooled_features(network, images)
    torch.testing.assert_close(found, last(images).mean(dim=(2, 3)))
    torch.testing.assert_close(logits, network(images))


def test_features_do_not_depend_on_the_batches():
    embedding = judge_embedding(ResidualClassifier(hidden_dim=8))
    images = torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8)
    for one, other in zip(embedding.of([images]), embedding.of(images.split(3)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_images_are_stored_by_rounding():
    images = torch.tensor([-1.0, -0.999, 0.0, 0.5, 1.0, 1.3, -2.0]).view(1, 1, 1, 7)
    assert to_uint8(images).flatten().tolist() == [0, 0, 128, 191, 255, 255, 0]


def test_samples_are_of_the_noise_in_order(monkeypatch):
    monkeypatch.setattr(fidelity, "BATCH_SIZE", 2)
    noise = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])[:, None]

    class Constant(nn.Module):
        def forward(self, z):
            return z[:, :, None, None].expand(-1, 3, 2, 2)

    batches = list(samples_of(Constant(), noise))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.cat(batches)[:, 0, 0, 0].tolist() == [0, 64, 128, 191, 255]


def test_figures_carry_their_protocol():
    found = Embedding("judge", lambda images: (images, images)).figures(
        features(20, 0), features(30, 1), "crop178", "train", "-ema"
    )
    assert list(found) == [f"{name}_judge/crop178/train/30-ema" for name in ("fid", "kid", "precision", "recall")]


def test_inception_without_its_file_or_library_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="inception=nowhere.pth: no such file"):
        inception_embedding("nowhere.pth")
    torch.save({}, tmp_path / "weights.pth")

    def missing(*_, **__):
        raise ModuleNotFoundError

    monkeypatch.setattr(fidelity, "FrechetInceptionDistance", missing)
    with pytest.raises(ValueError, match=r"needs torch-fidelity: pip install 'zsteer\[inception\]'"):
        inception_embedding(str(tmp_path / "weights.pth"))


class Malicious:
    """A pickle that would create a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_a_file_of_inceptions_weights_that_would_run_code_is_refused(tmp_path):
    torch.save(Malicious(tmp_path / "ran"), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="scores.inception=.*refused: the file would run code"):
        inception_embedding(str(tmp_path / "weights.pth"), key="scores.inception")
    assert not (tmp_path / "ran").exists()


def test_inceptions_features_are_torch_fidelitys_from_a_file_of_its_weights(tmp_path, monkeypatch):
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    published = library.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:  # the published weights are a download, so these are random
        patch.setattr(library, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(published, "load_state_dict", lambda *_: None)
        torch.save(published("inception-v3-compat", ["2048"]).state_dict(), tmp_path / "weights.pth")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    found, logits = inception_embedding(str(tmp_path / "weights.pth")).of([images])
    network = published("inception-v3-compat", ["2048"], str(tmp_path / "weights.pth"))
    with torch.no_grad():
        (expected,) = network(images)
    assert found.shape == (2, 2048) and logits.shape == (2, 0)
    torch.testing.assert_close(found, expected)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="inception=.*other.pth does not hold the weights"):
        inception_embedding(str(tmp_path / "other.pth"))
