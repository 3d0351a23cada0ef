import logging
import pwd

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zsteer.networks.combined import Conjunction
from zsteer.networks.tutorial import Classifier, Generator
from zsteer.steering import reference
from zsteer.steering.reference import compute_logits, reference_logits


def networks(seed=0):
    torch.manual_seed(seed)
    return Generator(z_dim=4, hidden_dim=2), [Classifier(n_classes=k, hidden_dim=2) for k in (3, 5)]


class LinearGenerator(nn.Module):
    """Images of 2×2 pixels, linear in the noise."""

    def __init__(self):
        super().__init__()
        self.z_dim = 4
        self.layer = nn.Linear(4, 12)

    def forward(self, noise):
        return self.layer(noise).view(-1, 3, 2, 2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and fewer samples."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "NUM_SAMPLES", 32)
    return tmp_path / "cache"


@pytest.fixture
def uncomputable(monkeypatch):
    def forbid():
        def compute(*_):
            raise AssertionError("computed again")

        monkeypatch.setattr(reference, "compute_logits", compute)

    return forbid


def test_logits_are_those_of_2048_samples_of_seed_0(monkeypatch):
    monkeypatch.undo()
    generator = LinearGenerator()
    classifiers = [nn.Sequential(nn.Flatten(), nn.Linear(12, k)) for k in (3, 5)]
    noise = torch.randn(2048, 4, generator=torch.Generator().manual_seed(0))
    expected = [classifier(generator(noise)) for classifier in classifiers]
    for found, direct in zip(compute_logits(generator, classifiers), expected, strict=True):
        assert found.dtype == torch.float32 and not found.requires_grad
        torch.testing.assert_close(found, direct.detach())


def test_a_bar_shows_how_far_the_samples_are_measured(capfd):
    compute_logits(*networks())
    assert "Measuring unsteered samples: " in capfd.readouterr().err


def test_reference_logits_are_the_computed_ones():
    generator, classifiers = networks()
    expected = compute_logits(generator, classifiers)
    for _ in range(2):
        for found, direct in zip(reference_logits(generator, classifiers), expected, strict=True):
            assert torch.equal(found, direct)


def test_second_call_computes_nothing(uncomputable):
    generator, classifiers = networks()
    first = reference_logits(generator, classifiers)
    uncomputable()
    for found, kept in zip(reference_logits(generator, classifiers), first, strict=True):
        assert torch.equal(found, kept)


def test_kept_logits_of_each_classifier_serve_in_any_company(uncomputable):
    generator, (one, other) = networks()
    first = reference_logits(generator, [one, other])
    uncomputable()
    assert torch.equal(reference_logits(generator, [other])[0], first[1])


def test_only_what_is_missing_is_computed(monkeypatch):
    generator, (one, other) = networks()
    reference_logits(generator, [one])
    computed = []
    original = reference.compute_logits
    monkeypatch.setattr(reference, "compute_logits", lambda g, c, d: computed.append(c) or original(g, c, d))
    reference_logits(generator, [one, other])
    assert computed == [[other]]


@pytest.mark.parametrize("any_of", [False, True])
def test_a_conjunctions_follow_from_those_of_its_classifier(any_of, uncomputable):
    generator, (classifier, _) = networks()
    conjunction = Conjunction(classifier, [0, 2], any_of)
    (expected,) = compute_logits(generator, [conjunction])
    reference_logits(generator, [classifier])
    uncomputable()
    plain, joint = reference_logits(generator, [classifier, conjunction])
    assert torch.equal(joint, expected) and torch.equal(joint[:, :3], plain)


@pytest.mark.parametrize("changed", ["generator", "classifier"])
def test_changed_weights_are_computed_anew(changed):
    generator, (classifier, _) = networks()
    (before,) = reference_logits(generator, [classifier])
    network = generator if changed == "generator" else classifier
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    (after,) = reference_logits(generator, [classifier])
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, compute_logits(generator, [classifier])[0])


def test_cache_is_under_xdg_cache_home(cache):
    reference_logits(*networks())
    assert len(list((cache / "zsteer").rglob("*.safetensors"))) == 2


@pytest.mark.parametrize("value", [None, ""])
def test_cache_is_in_the_home_folder_otherwise(value, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert (tmp_path / ".cache" / "zsteer") in (reference.cache_folder(), *reference.cache_folder().parents)


def test_without_a_home_there_is_no_cache_and_none_is_needed(monkeypatch, caplog):
    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])  # of a user that the system does not know
    assert len(reference_logits(*networks())) == 2
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.message == ("the reference logits could not be kept (no home folder is known); set XDG_CACHE_HOME")


def test_cache_that_cannot_be_written_is_only_a_warning(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    generator, classifiers = networks()
    with caplog.at_level(logging.WARNING):
        found = reference_logits(generator, classifiers)
    assert [tuple(logits.shape) for logits in found] == [(32, 3), (32, 5)]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "XDG_CACHE_HOME" in record.getMessage() and "\n" not in record.getMessage()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"half a file"),
        lambda path: path.write_bytes(b""),
        lambda path: save_file({"others": torch.zeros(32, 3)}, path),
        lambda path: save_file({"logits": torch.zeros(32, 2)}, path),
        lambda path: save_file({"logits": torch.zeros(31, 3)}, path),
        lambda path: save_file({"logits": torch.zeros(32, 3, 1)}, path),
        lambda path: save_file({"logits": torch.zeros(32, 3, dtype=torch.int64)}, path),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["text", "empty", "other name", "fewer outputs", "fewer samples", "more dimensions", "whole numbers", "folder"],
)
def test_broken_cache_file_is_computed_anew(cache, damage):
    generator, classifiers = networks()
    first = reference_logits(generator, classifiers)
    for path in cache.rglob("*.safetensors"):
        damage(path)
    for found, kept in zip(reference_logits(generator, classifiers), first, strict=True):
        assert torch.equal(found, kept)


def test_logits_shipped_with_the_package_are_preferred(monkeypatch, tmp_path, uncomputable):
    generator, classifiers = networks()
    monkeypatch.setattr(reference, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(reference, "cache_folder", lambda: tmp_path / "bundled")
    first = reference_logits(generator, classifiers)
    monkeypatch.setattr(reference, "cache_folder", lambda: tmp_path / "empty")
    uncomputable()
    for found, kept in zip(reference_logits(generator, classifiers), first, strict=True):
        assert torch.equal(found, kept)


def test_networks_keep_their_mode():
    generator, classifiers = networks()
    reference_logits(generator.train(), [classifier.train() for classifier in classifiers])
    assert generator.training and all(classifier.training for classifier in classifiers)


def test_generator_that_does_not_say_its_z_dim_is_an_error():
    with pytest.raises(ValueError, match=r"generator\.network=Identity must have an integer attribute z_dim"):
        reference_logits(nn.Identity(), [nn.Identity()])
