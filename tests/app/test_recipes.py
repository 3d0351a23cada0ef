"""CONTRIBUTING.md's tour names what is there, and each recipe of docs/how-to/extend.md runs as it stands."""

import ast
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from places import GOLDEN_NETWORKS, ROOT
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zsteer.data.store import ImageStore

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
EXTEND = (ROOT / "docs" / "how-to" / "extend.md").read_text()
PACKAGE = ROOT / "src" / "zsteer"
FOLDER = "../mine"  # what the recipes call the user's own

SMALL_GENERATOR, SMALL_CLASSIFIER = GOLDEN_NETWORKS[:3], GOLDEN_NETWORKS[3:6]
STEER = ["num_steps=2", "num_images=2", "judge=none", "trainer=cpu"]
FACES = ["data.num_train=32", "data.num_val=8", "data.num_test=64"]
TRAIN = ["max_images=16", "data.batch_size=8", "trainer=cpu", "trainer.log_every_n_steps=1"]
GAN = [*TRAIN, "generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4", "judge=none"]


def section(page: str, title: str) -> str:
    """The text below a heading of the second level, up to the next; a line of code may begin with one `#`."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, flags=re.M | re.S)
    assert found, title
    return found[1]


RECIPES = re.findall(r"^## (.+)$", EXTEND, flags=re.M)


@pytest.fixture
def own(tmp_path):
    """The folder of the reader's own files."""
    return tmp_path / "mine"


@pytest.fixture
def recipe(own, monkeypatch, command):
    """`recipe("A network")` writes its files and gives, for each of its commands, a function that runs it."""

    def follow(title):
        text = section(EXTEND, title)
        for block in re.findall(r"```(?:python|yaml)\n(.*?)```", text, flags=re.S):
            (name,) = re.findall(r"^# (\S+\.(?:py|yaml))\b", block, flags=re.M)
            (own / name).parent.mkdir(parents=True, exist_ok=True)
            (own / name).write_text(block)
        monkeypatch.syspath_prepend(own)
        for path in own.glob("*.py"):  # of an earlier test, in another folder
            monkeypatch.delitem(sys.modules, path.stem, raising=False)
        (shell,) = re.findall(r"```bash\n(.*?)```", text, flags=re.S)
        return [runner(line) for line in shell.replace("\\\n", " ").splitlines()]

    def runner(line):
        path, python, script, *words = shlex.split(line, comments=True)
        assert (path, python) == (f"PYTHONPATH={FOLDER}", "python")
        assert (ROOT / script).is_file()

        def run(*more, generator=None):
            """Run it with more words, which make it short; `generator` is the run that RUN stands for."""
            ended = command(
                Path(script).stem,
                *(word.replace(FOLDER, str(own)).replace("outputs/train_gan/RUN", str(generator)) for word in words),
                *more,
            )
            assert ended.code == 0, ended.err
            return ended.folder

        return run

    return follow


@pytest.fixture
def faces(tmp_path_factory):
    """Words for a few drawn faces, rendered once for all tests."""
    return [*FACES, f"data.root={tmp_path_factory.getbasetemp() / 'recipes'}"]


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


def assert_trained(run, name):
    """The run saw its images, and its weights are finite."""
    assert metrics_of(run)["num_images"] == 16
    assert all(weight.isfinite().all() for weight in load_file(run / f"{name}.safetensors").values())


def test_a_gan_loss(recipe, faces):
    (train,) = recipe("A GAN loss")
    run = train(*GAN, *faces)
    assert_trained(run, "generator")
    events = EventAccumulator(str(run)).Reload()
    real, fake, loss_d, loss_g = (
        events.Scalars(f"train/{tag}")[0].value for tag in ("logits_real", "logits_fake", "loss_d", "loss_g")
    )
    # A new discriminator's logits hardly differ from their mean. Cross entropy would be twice as much and more.
    assert loss_d == pytest.approx((real - 1) ** 2 / 2 + fake**2 / 2, abs=0.01)
    assert loss_g == pytest.approx(0.5, abs=0.05)


def test_a_regularizer(recipe, faces):
    (train,) = recipe("A regularizer")
    run = train(*GAN, *faces)
    assert_trained(run, "generator")
    terms = EventAccumulator(str(run)).Reload().Scalars("train/mine")
    assert all(-1 < term.value < 0 for term in terms)


def test_a_network(recipe, faces):
    train, steer = recipe("A network")
    run = train(*GAN, *faces)
    assert_trained(run, "generator")
    assert load_file(run / "generator.safetensors")["layers.0.weight"].shape == (8 * 4 * 4 * 4, 64)
    run = steer(*STEER, *SMALL_CLASSIFIER, "generator.network.hidden_dim=4", generator=run)
    noise = load_file(run / "history.safetensors")["noise"]
    assert noise.shape == (3, 2, 64)
    assert (noise[1:] != noise[:-1]).any(dim=2).all()


def test_a_steering_method(recipe):
    steer, _ = recipe("A steering method")
    run = steer("num_images=2", "num_steps=3", "judge=none", "trainer=cpu", "method.on_shell=false")
    assert metrics_of(run)["method"] == "signed"
    assert metrics_of(run)["step_size"] == 0.5  # by its `run`, for 256 numbers
    history = load_file(run / "history.safetensors")
    moved = (history["noise"][1:] - history["noise"][:-1]).abs()
    torch.testing.assert_close(moved, torch.full((3, 2, 256), 0.5 / 16))  # each number as far: a step's length is 1/2
    assert metrics_of(run)["gain_classifier"] > 0


def test_a_steering_method_is_compared(recipe, faces):
    _, compare = recipe("A steering method")
    judge = [word.replace("classifier", "judge", 1) for word in SMALL_CLASSIFIER]
    run = compare(
        *(*faces, *SMALL_GENERATOR, *SMALL_CLASSIFIER, *judge, "targets=[Smiling]", "num_images=2"),
        *("contenders.tutorial=['method=tutorial','num_steps=1']", "contenders.signed=['method=mine','num_steps=2']"),
    )
    contenders = {line.split(",")[1] for line in (run / "methods.csv").read_text().splitlines()}
    assert contenders == {"contender", "tutorial", "signed"}


def test_a_data_set(recipe, own, faces):
    train_gan, train_classifier = recipe("A data set")
    photos = own / "photos"
    (photos / "images").mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 256, (40, 3))
    for number, colour in enumerate(colours):
        Image.new("RGB", (80, 100), tuple(colour.tolist())).save(photos / "images" / f"{number}.png")
    labels = (colours[:, :2] > 127).astype(int)
    lines = [f"{number}.png,{red},{green}" for number, (red, green) in enumerate(labels)]
    (photos / "labels.csv").write_text("\n".join(["file,red,green", *lines]))
    assert_trained(train_gan(*GAN), "generator")
    (folder,) = photos.glob("store-*")
    store = ImageStore.open(folder)
    assert store.names == ("red", "green")
    assert store.counts() == {"train": 32, "val": 4, "test": 4}
    assert np.array_equal(store.targets, labels)
    assert np.array_equal(store.images, np.broadcast_to(colours[:, :, None, None], (40, 3, 64, 64)))
    run = train_classifier(*TRAIN, "classifier.network.hidden_dim=4")
    assert_trained(run, "classifier")
    assert set(metrics_of(run)["attributes"]["accuracy"]) == {"red", "green"}


def test_a_steering_module(recipe):
    (steer,) = recipe("A steering module")
    run = steer("num_images=2", "judge=none", "trainer=cpu", "method=ascent")
    history = load_file(run / "history.safetensors")
    smiling = history["logits"][..., 31].sigmoid()
    assert 2 < len(smiling) < 101
    assert (smiling[-2] >= 0.99).all()  # what it saw before it ended
    assert (smiling[-3] < 0.99).any()


def test_each_recipe_is_tested():
    assert len(RECIPES) == 6
    for title in RECIPES:
        assert f"test_{title.lower().replace(' ', '_')}" in globals()


def hops():
    return re.findall(r"^\d\. `([\w/.]+)`(?: `([\w.]+)`)?", section(CONTRIBUTING, "A tour"), flags=re.M)


def test_the_tour_has_both_ways():
    assert len(hops()) == 10 + 8


@pytest.mark.parametrize(("file", "function"), hops())
def test_each_hop_of_the_tour_is_there(file, function):
    path = ROOT / file if file.startswith("scripts/") else PACKAGE / file
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    assert not function or function in names


def imports_of(path):
    """The modules and packages of zsteer that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "zsteer":
            names = [f"zsteer.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name.split(".")[1] for name in names if name.startswith("zsteer."))


def test_packages_import_what_stands_below_them_in_the_tour():
    items = re.split(r"^- ", section(CONTRIBUTING, "A tour").split("\n\n`bundle`")[0], flags=re.M)[1:]
    *packages, leaves = (re.findall(r"`(\w+)`", item) for item in items)
    order = [names[0] for names in packages]
    assert set(order) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(leaves) == {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    for position, package in enumerate(order):
        allowed = {package, *order[position + 1 :], *leaves} - ({"classifier"} if package == "gan" else set())
        for path in (PACKAGE / package).rglob("*.py"):
            assert set(imports_of(path)) <= allowed, path
    for leaf in leaves:
        assert set(imports_of(PACKAGE / f"{leaf}.py")) <= set(leaves)
