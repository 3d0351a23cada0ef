"""What the package ships: networks that fit their configs, with their figures and reference logits beside them."""

import json

import pytest
import torch

from zsteer.app import bundling
from zsteer.app.composition import PACKAGE, compose
from zsteer.networks.loading import load_network, load_networks
from zsteer.steering import reference
from zsteer.steering.reference import compute_logits, reference_logits

BUNDLE = PACKAGE / "bundle"


@pytest.fixture(scope="module")
def networks():
    return load_networks(compose("steer"))


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("generator", 0),
        ("tutorial_generator", 0),
        ("classifier", 0),
        ("judge", 1),
        ("second_judge", 2),
    ],
    ids=str,
)
def test_config_seed_and_figures_stand_beside_the_weights(name, seed):
    text = (BUNDLE / f"{name}.json").read_text()
    about = json.loads(text)
    assert about["config"]["seed"] == seed
    assert 0 <= about["figures"]["num_images"] - about["config"]["max_images"] < 64  # whole batches
    assert len(about["figures"]) > 1
    assert '"/' not in text, "a path of the machine that it was trained on"


@pytest.mark.parametrize("judge", ["judge", "second_judge"])
def test_each_judge_saw_the_half_of_the_data_that_the_classifier_did_not(judge):
    configs = [json.loads((BUNDLE / f"{name}.json").read_text())["config"] for name in ("classifier", judge)]
    assert [config["data"]["fold"] for config in configs] == ["even", "odd"]
    keys = ("num_train", "num_val", "num_test", "correlation", "faces_seed")
    one, other = ([config["data"][key] for key in keys] for config in configs)
    assert one == other
    assert configs[0]["classifier"]["network"]["_target_"] != configs[1]["classifier"]["network"]["_target_"]


def test_reference_logits_of_all_classifiers_are_shipped(networks, monkeypatch):
    def compute(*_):
        raise AssertionError("not shipped for these networks; run `make bundle`")

    monkeypatch.setattr(reference, "compute_logits", compute)
    second = load_network(compose("compare").second_judge, "second_judge")
    shipped = reference_logits(networks.generator, [networks.classifier.network, networks.judge.network, second])
    assert [logits.shape for logits in shipped] == [(2048, 40)] * 3
    published = load_network(compose("steer", ["generator=tutorial"]).generator, "generator")
    assert len(reference_logits(published, [networks.classifier.network, networks.judge.network])) == 2


def test_shipped_reference_logits_are_the_networks_own(networks):
    (shipped,) = reference_logits(networks.generator, [networks.judge.network])
    (computed,) = compute_logits(networks.generator, [networks.judge.network])
    torch.testing.assert_close(shipped, computed, rtol=1e-3, atol=1e-2)


def test_the_bundle_is_small_and_in_half_precision(networks):
    size = sum(path.stat().st_size for path in BUNDLE.rglob("*.safetensors"))
    assert size < 30e6
    for name in ("generator", "tutorial_generator", "classifier", "judge", "second_judge"):
        tensors = bundling.load_file(BUNDLE / f"{name}.safetensors").values()
        assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float16}
