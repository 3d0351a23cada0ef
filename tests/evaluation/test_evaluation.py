"""Evaluation: figures of a classifier and rates of a generator, against counting by hand."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zsteer.app.composition import PACKAGE
from zsteer.data import procedural
from zsteer.data.attributes import CELEBA
from zsteer.data.procedural.rendering import procedural_store
from zsteer.data.store import ImageStore
from zsteer.networks.checkpoints import load_weights, save_weights
from zsteer.networks.described import DescribedGenerator
from zsteer.networks.loading import trained_scales
from zsteer.networks.r3gan import R3GANGenerator
from zsteer.networks.residual import ResidualClassifier
from zsteer.networks.tutorial import Classifier, Generator

BUNDLE = PACKAGE / "bundle"
NUM_TEST = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return (f"data.root={root}", "data.num_train=8", "data.num_val=8", f"data.num_test={NUM_TEST}")


def table(folder):
    with (folder / "attributes.csv").open() as file:
        return {row["attribute"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def drawn_faces():
    """The test split, drawn again: its indices begin at 20 million."""
    images, labels, _ = procedural.draw(torch.arange(NUM_TEST) + 20_000_000)
    return images.float() / 127.5 - 1, labels


def test_a_classifiers_accuracy_is_the_share_of_right_answers(command, data, drawn_faces):
    ended = command("evaluate", "what=classifier", *data)
    assert ended.code == 0, ended.err
    network = load_weights(Classifier(), BUNDLE / "classifier.safetensors").eval()
    images, labels = drawn_faces
    with torch.no_grad():
        right = (network(images) > 0) == (labels > 0.5)
    rows = table(ended.folder)
    assert list(rows) == list(CELEBA)
    for column, name in enumerate(CELEBA):
        assert float(rows[name]["accuracy"]) == pytest.approx(right[:, column].float().mean().item(), abs=1e-4)
        assert float(rows[name]["rate"]) == pytest.approx(labels[:, column].mean().item(), abs=1e-4)
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(right.float().mean().item(), abs=1e-4)
    (store,) = Path(data[0].partition("=")[2]).glob("procedural-*")
    assert ImageStore.open(store).counts() == {"train": 0, "val": 0, "test": NUM_TEST}
    assert f"{NUM_TEST}/{NUM_TEST}" in ended.err
    assert "Rendering faces, 0.00 GB" in ended.err


def test_a_store_of_all_splits_serves_for_each(command, tmp_path):
    root = tmp_path / "data"
    procedural_store(root, 2, 2, NUM_TEST)
    settings = (f"data.root={root}", "data.num_train=2", "data.num_val=2", f"data.num_test={NUM_TEST}")
    assert command("evaluate", "what=judge", *settings).code == 0
    assert len(list(root.glob("procedural-*"))) == 1
    assert procedural_store(root, 2, 2, NUM_TEST, only="test").counts()["train"] == 2


def test_a_regressor_is_scored_by_the_scales_of_its_own_training(command, data, drawn_faces):
    about = json.loads((BUNDLE / "regressor.json").read_text())
    names, scales = list(about["config"]["classifier"]["attributes"]), about["figures"]["scales"]
    path = f"classifier.checkpoint={BUNDLE / 'regressor.safetensors'}"
    ended = command("evaluate", "what=classifier", path, f"classifier.attributes=[{','.join(names)}]", *data)
    assert ended.code == 0, ended.err
    network = load_weights(Classifier(n_classes=len(names)), BUNDLE / "regressor.safetensors").eval()
    _, _, factors = procedural.draw(torch.arange(NUM_TEST) + 20_000_000)
    with torch.no_grad():
        outputs = network(drawn_faces[0])
    for name, column in zip(names, outputs.T, strict=True):
        mean, deviation = scales[name]
        error = (mean + deviation * column - factors[:, list(procedural.FACTORS).index(name)]).abs().mean().item()
        assert float(table(ended.folder)[name]["mean_absolute_error"]) == pytest.approx(error, rel=1e-3, abs=1e-4)


def test_a_generators_rates_are_what_the_judge_sees(command, data, drawn_faces):
    ended = command("evaluate", "what=generator", "num_images=30", *data)
    assert ended.code == 0, ended.err
    judge = load_weights(ResidualClassifier(), BUNDLE / "judge.safetensors").eval()
    generator = load_weights(DescribedGenerator(Generator(z_dim=256), 46, 24, 128), BUNDLE / "generator.safetensors")
    generator.eval()
    with torch.no_grad():
        samples = generator(torch.randn(30, 256, generator=torch.Generator().manual_seed(0)))
        rates = [(judge(images) > 0).float().mean(dim=0) for images in (samples, drawn_faces[0])]
    figures = json.loads((ended.folder / "metrics.json").read_text())
    assert figures["attribute_rate_error"] == pytest.approx((rates[0] - rates[1]).abs().mean().item(), abs=0.01)
    for column, (name, row) in enumerate(table(ended.folder).items()):
        assert name == CELEBA[column]
        assert float(row["rate_generated"]) == pytest.approx(rates[0][column].item(), abs=0.04)  # at most one image
        assert float(row["rate_data"]) == pytest.approx(rates[1][column].item(), abs=0.03)


@pytest.mark.parametrize("source", ["gradient", "boundary", "sefa"])
def test_directions_are_named_by_the_judge_and_can_be_steered_along(command, source):
    ended = command("evaluate", "what=directions", f"source={source}")
    assert ended.code == 0, ended.err
    with (ended.folder / "directions.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) == {"gradient": 40, "boundary": 40, "sefa": 32}[source]
    assert {row[1] for row in rows} <= set(CELEBA)
    if source != "sefa":  # a named direction moves what it is named after, in the judge's eyes too
        assert sum(row[0] in row[1::2] for row in rows) > 30
    file = ended.folder / "directions.safetensors"
    runs = [
        command("steer", "method=direction", f"method.source={given}", "num_steps=2", "judge=none")
        for given in (source, file)
    ]
    ends = [load_file(run.folder / "history.safetensors")["noise"][-1] for run in runs]
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["what=directions", "source=sega"], "source=sega must be one of gradient"),
        (["what=generator", "judge=none"], "judge=none: what=generator needs one"),
        (["what=nothing"], "what=nothing must be one of classifier, judge, generator"),
        (["split=dev"], "split=dev must be one of train, val, test, all"),
        (["classifier.attributes=[Male,Smiling]"], "does not fit classifier.network"),
        (
            ["classifier.attributes=[Male,Smiling]", "classifier.network.n_classes=40"],
            "2 names of classifier.attributes",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_named(command, data, words, said):
    ended = command("evaluate", *words, *data)
    assert ended.code != 0
    assert said in ended.err.splitlines()[-1]


def test_data_of_another_size_are_named_before_anything_is_looked_at(command, data, tmp_path):
    small = tmp_path / "generator.safetensors"
    save_weights(R3GANGenerator(widths=[8] * 4, blocks=1), small, {})
    words = ["generator=r3gan", "generator.network.widths=[8,8,8,8]", "generator.network.blocks=1"]
    ended = command("evaluate", "what=generator", *words, f"generator.checkpoint={small}", *data)
    assert ended.code == 1
    said = "generator.network makes images of 32×32 pixels, and the data have 64×64; name other data, or set data.size"
    assert said in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    "scales",
    [[1, 2], {"age": 3}, {"age": [1]}, {"age": ["a", "b"]}, {"age": [1, 0]}, {"age": [1, -2]}, {"age": [None, 1]}],
)
def test_scales_beside_the_weights_that_are_none_are_named(scales, tmp_path):
    about = {"config": {}, "figures": {"scales": scales}}
    (tmp_path / "c.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"judge.checkpoint=.*/c.safetensors: the JSON beside it has figures.scales"):
        trained_scales(str(tmp_path / "c.safetensors"), "judge")


def test_scales_are_those_that_are_recorded(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"config": {}, "figures": {"scales": {"age": [3, 2.5]}}}))
    assert trained_scales(str(tmp_path / "c.safetensors"), "judge") == {"age": (3.0, 2.5)}
    assert trained_scales(None, "judge") == trained_scales(str(tmp_path / "other.pth"), "judge") == {}
