import json
import os
import pickle

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zsteer import training
from zsteer.attributes import CELEBA
from zsteer.checkpoints import load_weights
from zsteer.gan import GANModule
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
        call.folders.append(folder)
        cfg = compose(name, [*QUICK, f"data.root={root}", *overrides])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "output_folder", lambda: folder)
            return task(cfg), folder, cfg

    call.folders = []
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
    for tag in ("train/loss_g", "train/loss_d", "train/r1"):
        assert [event.step for event in events.Scalars(tag)] == [0, 1, 2, 3]


def test_gan_run_logs_its_samples_by_the_images_seen(gan):
    events = EventAccumulator(str(gan[1])).Reload()
    assert [event.step for event in events.Images("samples/ema")] == [16, 64]


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


def test_runs_of_two_seeds_differ(run, gan):
    _, folder, _ = run(train_gan, "train_gan", *GAN, "seed=1", "max_images=16")
    one, other = (load_file(path / "generator.safetensors")["gen.0.0.weight"] for path in (gan[1], folder))
    assert not torch.allclose(one, other, atol=0.01)


class Interrupted(Exception):
    """What ends a run in the middle."""


def test_interrupted_run_goes_on_from_its_last_checkpoint(run, gan, monkeypatch):
    original = GANModule.training_step

    def interrupted(module, batch, index):
        if module.num_iterations == 2:
            raise Interrupted
        return original(module, batch, index)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(GANModule, "training_step", interrupted)
        run(train_gan, "train_gan", *GAN, "checkpoint_minutes=1e-5")
    path = run.folders[-1] / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["progress"]["num_iterations"] == 2
    figures, folder, _ = run(train_gan, "train_gan", *GAN, f"ckpt_path={path}")
    assert figures["num_images"] == 64
    expected = load_file(gan[1] / "generator.safetensors")
    for name, tensor in load_file(folder / "generator.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


class Malicious:
    """Pickles to a command that leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_resuming_does_not_run_what_a_checkpoint_asks_for(run, gan, tmp_path):
    content = torch.load(gan[1] / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({**content, "extra": Malicious(tmp_path / "mark")}, tmp_path / "bad.ckpt")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        run(train_gan, "train_gan", *GAN, f"ckpt_path={tmp_path / 'bad.ckpt'}")
    assert not (tmp_path / "mark").exists()


def test_finished_run_trains_the_rest_of_a_longer_one(run, gan):
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


@pytest.mark.parametrize(
    ("content", "said"),
    [({"generator": {}}, "is not a checkpoint of a training run"), ({"epoch": 0, "state_dict": {}}, "missing")],
)
def test_what_is_no_checkpoint_of_this_training_is_refused(run, tmp_path, content, said):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=f"ckpt_path=.*{said}"):
        run(train_gan, "train_gan", *GAN, f"ckpt_path={tmp_path / 'other.ckpt'}")


def test_logits_and_targets_that_differ_in_number_are_named(run):
    with pytest.raises(ValueError, match=r"classifier.network gives \[2, 40\] for 2 images.* 1 names"):
        run(train_classifier, "train_classifier", *CLASSIFIER, "data.attributes=[Smiling]")
