import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zsteer import training
from zsteer.attributes import CELEBA
from zsteer.checkpoints import load_weights
from zsteer.networks import Classifier, Generator
from zsteer.run import compose
from zsteer.training import precision_of, train_classifier, train_gan

FACES = ["data.num_train=64", "data.num_val=32", "data.num_test=32", "max_images=64", "data.batch_size=16"]
QUICK = [*FACES, "trainer=cpu", "trainer.precision=32-true", "+trainer.enable_progress_bar=false"]
GAN = ["generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4", "trainer.log_every_n_steps=1"]
CLASSIFIER = ["classifier.network.hidden_dim=4", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where the procedural faces are rendered, once for this file."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """Run a training in a new folder and return its figures, the folder and its config."""

    def call(task, name, *overrides):
        folder = tmp_path_factory.mktemp(name)
        cfg = compose(name, [*QUICK, f"data.root={root}", *overrides])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "output_folder", lambda: folder)
            return task(cfg), folder, cfg

    return call


@pytest.fixture(scope="module")
def gan(run):
    return run(train_gan, "train_gan", *GAN)


@pytest.fixture(scope="module")
def classifier(run):
    return run(train_classifier, "train_classifier", *CLASSIFIER)


def test_gan_run_reports_the_images_that_it_saw(gan):
    figures, folder, _ = gan
    assert figures["num_images"] == 64
    assert json.loads((folder / "metrics.json").read_text()) == figures


def test_gan_run_exports_the_average(gan):
    _, folder, _ = gan
    exported = load_file(folder / "generator.safetensors")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in exported.items():
        assert torch.equal(tensor, state[f"ema_generator.{name}"])


def test_gan_runs_generator_loads_strictly_and_generates(gan):
    network = load_weights(Generator(hidden_dim=4), gan[1] / "generator.safetensors").eval()
    assert network(torch.randn(2, 64)).isfinite().all()


def test_gan_runs_checkpoint_has_counted_iterations(gan):
    content = torch.load(gan[1] / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["progress"] == {"num_iterations": 4, "num_images": 64}


def test_gan_run_draws_its_samples(gan):
    with Image.open(gan[1] / "samples.png") as image:
        assert image.size[0] == image.size[1] >= 8 * 64


def test_gan_run_logs_each_iteration(gan):
    events = EventAccumulator(str(gan[1])).Reload()
    for tag in ("train/loss_g", "train/loss_d"):
        assert len(events.Scalars(tag)) == 4
    assert len(events.Scalars("train/r1")) == 1  # every fourth
    assert "samples/ema" in events.Tags()["images"]


@pytest.mark.parametrize("name", ["gan", "classifier"])
def test_config_is_beside_the_weights_with_nothing_left_to_resolve(name, request):
    _, folder, cfg = request.getfixturevalue(name)
    file = {"gan": "generator.json", "classifier": "classifier.json"}[name]
    saved = json.loads((folder / file).read_text())["config"]
    assert saved["max_images"] == saved["data"]["max_images"] == 64
    assert saved["data"]["root"] == cfg.data.root
    assert "${" not in json.dumps(saved)


def test_classifier_run_reports_its_test_figures(classifier):
    figures, folder, _ = classifier
    assert set(figures) == {"num_images", "test_accuracy", "test_balanced_accuracy", "test_average_precision"}
    assert 0 < figures["test_accuracy"] < 1
    saved = json.loads((folder / "metrics.json").read_text())
    assert {name: saved[name] for name in figures} == figures


def test_classifier_run_reports_each_attribute(classifier):
    saved = json.loads((classifier[1] / "metrics.json").read_text())["attributes"]
    for column in saved.values():
        assert list(column) == list(CELEBA)


def test_classifier_runs_weights_load_strictly(classifier):
    _, folder, _ = classifier
    network = load_weights(Classifier(hidden_dim=4), folder / "classifier.safetensors", role="classifier")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[f"network.{name}"])


def test_classifier_run_validates_while_it_trains(classifier):
    events = EventAccumulator(str(classifier[1])).Reload()
    assert len(events.Scalars("val/balanced_accuracy")) == 4  # after each quarter
    assert len(events.Scalars("train/loss")) == 4


def test_training_goes_on_from_a_runs_weights(run, classifier):
    path = classifier[1] / "classifier.safetensors"
    still = ["training.max_lr=1e-30", f"classifier.checkpoint={path}"]
    _, folder, _ = run(train_classifier, "train_classifier", *CLASSIFIER, *still)
    before, after = load_file(path), load_file(folder / "classifier.safetensors")
    torch.testing.assert_close(after["classifier.0.0.weight"], before["classifier.0.0.weight"])


def test_runs_of_one_seed_are_equal_and_of_two_are_not(run, gan):
    weights = [load_file(gan[1] / "generator.safetensors")["gen.0.0.weight"]]
    for seed in (0, 1):
        _, folder, _ = run(train_gan, "train_gan", *GAN, f"seed={seed}")
        weights.append(load_file(folder / "generator.safetensors")["gen.0.0.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_resumed_run_trains_the_rest_only(run, gan):
    path = gan[1] / "checkpoints" / "last.ckpt"
    figures, folder, _ = run(train_gan, "train_gan", *GAN, f"ckpt_path={path}", "max_images=96")
    assert figures["num_images"] == 96
    progress = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["progress"]
    assert progress == {"num_iterations": 6, "num_images": 96}


def test_dcgan_generator_trains_too(run):
    figures, folder, _ = run(train_gan, "train_gan", "generator=dcgan", *GAN, "max_images=16")
    assert figures["num_images"] == 16
    assert "main.0.weight" in load_file(folder / "generator.safetensors")


@pytest.mark.parametrize("wanted", ["32-true", "64-true", "bf16-mixed", "16-mixed"])
def test_precision_asked_for_is_kept(wanted):
    assert precision_of(wanted) == wanted


@pytest.mark.parametrize(
    "cuda, bf16, amx, expected",
    [
        (True, True, False, "bf16-mixed"),
        (True, False, True, "32-true"),
        (False, False, True, "bf16-mixed"),
        (False, False, False, "32-true"),
    ],
    ids=["GPU with bfloat16", "old GPU", "CPU with AMX", "other CPU"],
)
def test_automatic_precision_is_bfloat16_where_the_hardware_multiplies_it(cuda, bf16, amx, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert precision_of("auto") == expected
