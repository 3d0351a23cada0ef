import errno
import json
import os
import pickle
import re
import signal
import tempfile

import pytest
import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from PIL import Image
from places import GOLDEN_NETWORKS
from pytorch_lightning import Callback
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zsteer
from zsteer.app import commands
from zsteer.app.composition import compose
from zsteer.classifier import training as classifier_training
from zsteer.data import procedural
from zsteer.data.attributes import CELEBA
from zsteer.gan import training as gan_training
from zsteer.gan.fidelity import frechet_distance, judge_embedding, samples_of
from zsteer.gan.module import GANModule
from zsteer.networks.checkpoints import load_weights
from zsteer.networks.conditional import ConditionalGenerator
from zsteer.networks.loading import load_network
from zsteer.networks.tutorial import Classifier, Generator
from zsteer.training.fitting import WholeCheckpoints, precision_of

FACES = ["data.num_train=64", "data.num_val=32", "data.num_test=32", "max_images=64", "data.batch_size=16"]
QUICK = [*FACES, "trainer=cpu", "trainer.precision=32-true", "+trainer.enable_progress_bar=false"]
SCORES = ["scores.num_samples=16", "scores.every_images=32"]
GAN = [*SCORES, "generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4", "trainer.log_every_n_steps=1"]
COSINE = "{_target_:zsteer.gan.schedules.Cosine,start:1,end:0,num_images:8}"
SUPERVISED = ["regularizer=supervised", "gan.regularizers.supervised.indices={Male:0}"]
CLASSIFIER = ["classifier.network.hidden_dim=4", "trainer.log_every_n_steps=1"]
# Small, since what is steered is measured against 2,048 samples of a generator that is new.
JUDGED = [word for word in GOLDEN_NETWORKS if not word.startswith("generator")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where the procedural faces are rendered, once for this file."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def folders():
    """The folders of the runs of this file, in their order."""
    return []


@pytest.fixture(scope="module")
def run(root, folders, tmp_path_factory):
    """Run a training in a new folder and return its figures, the folder and its config."""

    def call(name, *overrides):
        folder = tmp_path_factory.mktemp(name)
        folders.append(folder)
        cfg = compose(name, [*QUICK, f"data.root={root}", f"run_folder={folder}", *overrides])
        return getattr(commands, name).perform(cfg, folder).metrics, folder, cfg

    return call


@pytest.fixture(scope="module")
def gan(run):
    return run("train_gan", *GAN)


@pytest.fixture(scope="module")
def classifier(run):
    return run("train_classifier", *CLASSIFIER)


def test_gan_run_reports_the_images_that_it_saw_and_its_last_scores(gan):
    figures, folder, _ = gan
    protocol = "judge/procedural64-uint8/val/16-ema"
    assert set(figures) == {"num_images", *(f"{name}_{protocol}" for name in ("fid", "kid", "precision", "recall"))}
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


def test_gan_runs_scores_are_those_of_its_average(gan, root):
    figures, folder, cfg = gan
    judge = load_network(compose("evaluate").judge, "judge")
    embedding = judge_embedding(judge)
    generator = load_weights(Generator(hidden_dim=4), folder / "generator.safetensors").eval()
    noise = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    faces, _, _ = procedural.draw(torch.arange(32) + 10_000_000)
    real, fake = (embedding.of([images])[0] for images in (faces, next(iter(samples_of(generator, noise)))))
    assert figures["fid_judge/procedural64-uint8/val/16-ema"] == pytest.approx(frechet_distance(real, fake), rel=1e-3)
    events = EventAccumulator(str(folder)).Reload()
    logged = events.Scalars("fid_judge/procedural64-uint8/val/16-ema")
    assert [event.step for event in logged] == [32, 64]
    assert logged[-1].value == pytest.approx(figures["fid_judge/procedural64-uint8/val/16-ema"], rel=1e-5)


R3GAN_NARROW = ["generator.network.width=0.0625", "discriminator.network.width=0.0625"]
NARROW = ["generator.network.hidden_dim=4", "discriminator.network.hidden_dim=4"]
PRESETS = {
    "wgan_gp_small": NARROW,
    "sngan_small": NARROW,
    "r3gan_small": [],
    "celeba_tutorial_gan": NARROW,
    "celeba_sngan": NARROW,
    "celeba_r3gan": R3GAN_NARROW,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_train(run, preset):
    words = ["data=procedural", "judge=none", "data.batch_size=4", "max_images=8", "trainer.log_every_n_steps=1"]
    figures, folder, _ = run("train_gan", f"experiment={preset}", *words, *PRESETS[preset])
    assert figures["num_images"] >= 8
    exported = load_file(folder / "generator.safetensors")
    assert all(tensor.isfinite().all() for tensor in exported.values())
    if preset == "celeba_r3gan":  # whose settings are schedules
        events = EventAccumulator(str(folder)).Reload()
        assert [event.step for event in events.Scalars("train/r2")] == [0, 1]


def test_gan_without_a_judge_has_no_scores(run):
    figures, _, _ = run("train_gan", *GAN, "judge=none", "max_images=16")
    assert figures == {"num_images": 16}


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
    names = ("accuracy", "balanced_accuracy", "f1", "average_precision", "calibration_error")
    assert set(figures) == {"num_images", *(f"test_{name}" for name in names)}
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


def test_classifier_run_draws_each_labels_precision_and_recall(classifier):
    events = EventAccumulator(str(classifier[1])).Reload()
    tags = events.PluginTagToContent("pr_curves")
    assert set(tags) == {f"test/{name}" for name in CELEBA}


def test_balanced_training_weighs_by_the_rates_of_the_training_images(run, root, monkeypatch):
    seen = []
    original = classifier_training.instantiate
    monkeypatch.setattr(
        classifier_training, "instantiate", lambda cfg, **more: seen.append(more.get("rates")) or original(cfg, **more)
    )
    named = ["data.attributes=[Smiling,Male]", "max_images=16", "balanced=true"]
    run("train_classifier", *CLASSIFIER, *named)
    _, labels, _ = procedural.draw(torch.arange(64))
    rates = next(rates for rates in seen if rates)
    assert rates == pytest.approx(labels[:, [CELEBA.index("Smiling"), CELEBA.index("Male")]].mean(dim=0).tolist())


def test_training_goes_on_from_a_runs_weights(run, classifier):
    path = classifier[1] / "classifier.safetensors"
    still = ["training.max_lr=1e-30", f"classifier.checkpoint={path}"]
    _, folder, _ = run("train_classifier", *CLASSIFIER, *still)
    before, after = load_file(path), load_file(folder / "classifier.safetensors")
    torch.testing.assert_close(after["classifier.0.0.weight"], before["classifier.0.0.weight"])


def test_runs_of_two_seeds_differ(run, gan):
    _, folder, _ = run("train_gan", *GAN, "seed=1", "max_images=16")
    one, other = (load_file(path / "generator.safetensors")["gen.0.0.weight"] for path in (gan[1], folder))
    assert not torch.allclose(one, other, atol=0.01)


class Interrupted(Exception):
    """What ends a run in the middle."""


def test_interrupted_run_goes_on_from_its_last_checkpoint(run, folders, gan, monkeypatch):
    original = GANModule.training_step

    def interrupted(module, batch, index):
        if module.num_iterations == 2:
            raise Interrupted
        return original(module, batch, index)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(GANModule, "training_step", interrupted)
        run("train_gan", *GAN, "checkpoint_minutes=1e-5")
    path = folders[-1] / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["progress"]["num_iterations"] == 2
    figures, folder, _ = run("train_gan", *GAN, f"ckpt_path={path}")
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
        run("train_gan", *GAN, f"ckpt_path={tmp_path / 'bad.ckpt'}")
    assert not (tmp_path / "mark").exists()


def test_finished_run_trains_the_rest_of_a_longer_one(run, gan):
    path = gan[1] / "checkpoints" / "last.ckpt"
    figures, folder, _ = run("train_gan", *GAN, f"ckpt_path={path}", "max_images=96")
    assert figures["num_images"] == 96
    progress = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["progress"]
    assert progress == {"num_iterations": 6, "num_images": 96}


def test_a_classifiers_longer_run_has_a_longer_cycle(run, classifier):
    path = classifier[1] / "checkpoints" / "last.ckpt"
    words = [*CLASSIFIER, "max_images=160"]  # ten steps, of which four are done
    _, longer, _ = run("train_classifier", *words, f"ckpt_path={path}")
    _, whole, _ = run("train_classifier", *words)
    rates = []
    for folder in (longer, whole):
        (schedule,) = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["lr_schedulers"]
        rates.append((schedule["last_epoch"], schedule["total_steps"], schedule["_last_lr"]))
    assert rates[0] == rates[1]
    assert rates[0][:2] == (10, 10)


SIZES = {
    "dcgan": (["generator.network.hidden_dim=4"], ["discriminator.network.hidden_dim=4"]),
    "sngan": (["generator.network.hidden_dim=2"], ["discriminator=sngan", "discriminator.network.hidden_dim=2"]),
    "r3gan": (["generator.network.width=0.0208333"], ["discriminator=r3gan", "discriminator.network.width=0.0208333"]),
}


@pytest.mark.parametrize(
    ("generator", "loss"), [("dcgan", "bce"), ("sngan", "hinge"), ("sngan", "wgan_gp"), ("r3gan", "r3gan")]
)
def test_every_generator_and_loss_trains_and_is_steered(generator, loss, run, command):
    sizes = [f"generator={generator}", *SIZES[generator][0]]
    words = [*sizes, *SIZES[generator][1], f"gan_loss={loss}", *SCORES, "trainer.log_every_n_steps=1"]
    figures, folder, _ = run("train_gan", *words, "max_images=32", "data.batch_size=16")
    assert figures["num_images"] == (80 if loss == "wgan_gp" else 32)  # five critic steps are one iteration
    assert all(tensor.isfinite().all() for tensor in load_file(folder / "generator.safetensors").values())
    own = [*sizes, f"generator.checkpoint={folder / 'generator.safetensors'}", *JUDGED]
    steered = command("steer", *own, "num_images=2", "num_steps=1", "method=ascent")
    assert steered.code == 0, steered.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches=2 cannot .* use gan.accumulate"),
        (["+trainer.gradient_clip_val=1"], "trainer.gradient_clip_val=1 cannot .* use gan.clip_norm"),
        (["+trainer.max_steps=5"], "trainer.max_steps=5 cannot be set; use max_images"),
        (["+trainer.callbacks=[]"], "trainer.callbacks=.* cannot be set; use callbacks"),
        (
            ["trainer.precision=16-mixed"],
            "trainer.precision=16-mixed must be one of auto, 32-true, 64-true, bf16-mixed",
        ),
        (["gan.accumulate=3"], "gan.accumulate=3 must divide data.batch_size=64"),
        (["gan.penalty_every=0"], "gan.penalty_every=0 must be a whole number, 1 or more"),
        (["gan.r1_gamma=-1"], "gan.r1_gamma=-1 must be a finite number, 0 or more"),
        (["gan.ema_half_life=0"], "gan.ema_half_life=0 must be a finite number, greater than 0"),
        (
            [f"+gan.schedules.lrr={COSINE}"],
            "gan.schedules.lrr must be one of lr, beta2",
        ),
        (
            [
                f"+gan.schedules.lr={COSINE}",
                "gan.optimizer_d.lr=1",
            ],
            "gan.optimizer_d.lr=1 cannot differ from the generator's under gan.schedules.lr",
        ),
        (["scores.inception=nowhere"], "scores.inception=nowhere: no such file"),
        (["gan.condition=2"], "gan.condition=2 must be 'celeba' or a list of names"),
        (
            ["gan.condition=celeba", "generator.network.z_dim=40"],
            "gan.condition has 40 names, which must be fewer than",
        ),
        (["gan.condition=[Male]", "data.attributes=[Male]"], "data.attributes=.* has no meaning beside gan.condition"),
        (["gan.clip_norm=0"], "gan.clip_norm=0 must be a finite number, greater than 0"),
        (["scores.split=dev"], "scores.split=dev must be one of train, val, test, all"),
        (["scores.num_samples=2"], "scores.num_samples=2 must be a whole number, 4 or more"),
    ],
)
def test_settings_of_a_gan_that_cannot_be_are_refused_before_the_data_are_made(command, tmp_path, words, said):
    ended = command("train_gan", f"data.root={tmp_path / 'data'}", *words)
    assert ended.code == 1
    assert re.search(f"^error: {said}", ended.err.splitlines()[-1])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gan.condition=[Smiling,height]"], "gan.condition='height' is not an attribute of this data set"),
        (["gan.condition=[Male]", "discriminator.network.num_conditions=0"], "must give 1 \\+ 1 numbers for each"),
        (["scores.num_samples=16", "data.num_val=3"], "the data's val split has 3 images; FID and the like need more"),
        (["judge.network._target_=torch.nn.Flatten", "judge.checkpoint=null"], "judge.network"),
    ],
)
def test_what_cannot_train_is_said_before_the_first_step(run, words, said, monkeypatch):
    monkeypatch.setattr(GANModule, "training_step", lambda *_: pytest.fail("it trains"))
    with pytest.raises((ValueError, HydraException), match=said):
        run("train_gan", *GAN, *words)


def test_a_conditional_generator_is_told_what_to_draw_by_its_run(run, command):
    words = ["gan.condition=[smiling,hair_length]", "judge=none", "max_images=32", "generator.network.z_dim=8"]
    _, folder, cfg = run("train_gan", *GAN, *words)
    generator = zsteer.load(folder)
    assert isinstance(generator, ConditionalGenerator) and generator.condition == ("Smiling", "hair_length")
    targets = torch.tensor(instantiate(cfg.data, attributes=["Smiling", "hair_length"]).train_targets())
    examples = generator.examples * generator.scales[1] + generator.scales[0]
    torch.testing.assert_close(examples.unique(dim=0), targets.unique(dim=0))
    asked = command("sample", f"generator={folder}", "condition={Smiling: true, hair_length: 0.5}", "num_images=4")
    assert asked.code == 0, asked.err
    noise = load_file(asked.folder / "noise.safetensors")["noise"]
    wanted = (0.5 - generator.scales[0, 1]) / generator.scales[1, 1]
    torch.testing.assert_close(noise[:, -2:], torch.tensor([1.0, wanted]).expand(4, -1))
    again = command("sample", f"generator={folder}", f"noise={asked.folder}", "condition={Smiling: false}")
    changed = load_file(again.folder / "noise.safetensors")["noise"]
    assert torch.equal(changed[:, :-2], noise[:, :-2]) and (changed[:, -2] == 0).all()
    torch.testing.assert_close(changed[:, -1], noise[:, -1])
    images = zsteer.sample(generator, 4, condition={"Smiling": True, "hair_length": 0.5})
    with torch.no_grad():
        torch.testing.assert_close(images, generator(noise), rtol=1e-4, atol=1e-5)


def test_steering_moves_a_conditional_generators_noise_or_its_condition(run, command):
    words = ["gan.condition=[Smiling,Male]", "judge=none", "max_images=32", "generator.network.z_dim=8"]
    _, folder, _ = run("train_gan", *GAN, *words)
    quick = [f"generator={folder}", "num_images=2", "num_steps=4", "condition={Smiling: false}", *JUDGED]
    for method in ("projected", "tutorial", "direction", "condition"):
        ended = command("steer", *quick, f"method={method}")
        assert ended.code == 0, ended.err
        noise = load_file(ended.folder / "history.safetensors")["noise"]
        free, smiling, male = noise[:, :, :6], noise[:, :, 6], noise[:, :, 7]
        assert (male == male[0]).all() and (smiling[0] == 0).all()
        if method == "condition":
            assert (free == free[0]).all()
            torch.testing.assert_close(smiling[-1], torch.full((2,), 4 * 0.0625))
        else:
            assert (smiling == 0).all() and (free[-1] != free[0]).all()
        if method == "projected":
            torch.testing.assert_close(free[-1].norm(dim=1), free[0].norm(dim=1))
            half_dim, radius = torch.tensor(3.0).double(), free[-1].double().square().sum(dim=1)
            typical = 100 * torch.special.gammainc(half_dim, radius / 2).mean().item()
            figures = json.loads((ended.folder / "metrics.json").read_text())
            assert figures["noise_norm_percentile"] == pytest.approx(typical)
    for words, said in (
        (["method=condition", "target=Young"], "target='Young' is not an attribute of what the generator is told"),
        (["method=best_of"], "method=best_of looks among samples, whose conditions differ"),
        (["where={smiling: true}"], "condition={Smiling: false} tells the generator what where looks for; keep one"),
        (["condition=3"], "condition=3 must map attributes to their values, as in condition={Smiling: true}"),
    ):
        ended = command("steer", *quick, *words)
        assert ended.code == 1 and said in ended.err.splitlines()[-1]
    ended = command("steer", "method=condition")
    assert "method=condition needs a generator that was trained with gan.condition" in ended.err.splitlines()[-1]


def test_a_gan_that_diverges_ends_in_an_error_and_leaves_no_weights(run, folders):
    words = ["judge=none", "gan.optimizer_g.lr=1e30", "data.num_test=32"]
    with pytest.raises(ValueError, match="training diverged: .* is NaN or infinite; lower the learning rate"):
        run("train_gan", *GAN, *words)
    assert not list(folders[-1].rglob("*.safetensors"))
    assert not list(folders[-1].rglob("*.ckpt"))


@pytest.mark.parametrize("loss", ["bce", "hinge", "wgan_gp", "r3gan"])
def test_each_loss_trains_in_bfloat16_with_every_penalty(run, loss):
    penalties = ["gan.r1_gamma=1", "gan.r2_gamma=1", "gan.gp_weight=1", "gan.discriminator_steps=1"]
    words = [f"gan_loss={loss}", *penalties, "judge=none", "max_images=16", "trainer.precision=bf16-mixed"]
    _, folder, _ = run("train_gan", *GAN, *words)
    assert all(tensor.isfinite().all() for tensor in load_file(folder / "generator.safetensors").values())
    events = EventAccumulator(str(folder)).Reload()
    assert {"train/r1", "train/r2", "train/gp"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize(
    "words",
    [
        ["description=classifier", "gan.description.num_steps=20", "generator.network.z_dim=64", "data.num_train=64"],
        ["gan.condition=[Smiling,hair_length]", *SUPERVISED],
        ["regularizer=[infogan,hessian_penalty,orojar]"],
    ],
    ids=["description", "condition", "regularizers"],
)
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_what_gives_numbers_a_meaning_trains_in_each_precision(run, words, precision):
    words = [*words, "judge=none", "max_images=16", f"trainer.precision={precision}"]
    _, folder, _ = run("train_gan", *GAN, *words)
    assert all(tensor.isfinite().all() for tensor in load_file(folder / "generator.safetensors").values())


class Terminates(Callback):
    """Sends this process SIGTERM in the middle of a step, as a scheduler does."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_between_two_steps_and_the_run_goes_on_as_if_nothing_had_been(run, folders, gan, monkeypatch):
    original = gan_training.trainer_of
    with (
        monkeypatch.context() as patch,
        pytest.raises(InterruptedError, match=r"terminated; ckpt_path=.*last.ckpt goes on"),
    ):
        patch.setattr(gan_training, "trainer_of", lambda *args, **more: original(*args, Terminates(), **more))
        run("train_gan", *GAN)
    path = folders[-1] / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["progress"]["num_iterations"] == 3
    figures, folder, _ = run("train_gan", *GAN, f"ckpt_path={path}")
    assert figures == gan[0]
    expected = load_file(gan[1] / "generator.safetensors")
    for name, tensor in load_file(folder / "generator.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    path.write_text("good")

    def full(checkpoint, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        WholeCheckpoints().save_checkpoint({}, path)
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("wanted", ["32-true", "64-true", "bf16-mixed", "16-mixed"])
def test_precision_asked_for_is_kept(wanted):
    assert precision_of(wanted, "gpu") == wanted


@pytest.mark.parametrize(
    "accelerator, cuda, bf16, amx, expected",
    [
        ("gpu", True, True, False, "bf16-mixed"),
        ("gpu", True, False, True, "32-true"),
        ("cpu", True, True, False, "32-true"),
        ("cpu", False, False, True, "bf16-mixed"),
        ("auto", False, False, False, "32-true"),
    ],
    ids=["GPU with bfloat16", "old GPU", "CPU beside a GPU", "CPU with AMX", "other CPU"],
)
def test_automatic_precision_is_bfloat16_where_the_hardware_multiplies_it(
    accelerator, cuda, bf16, amx, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert precision_of("auto", accelerator) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [({"generator": {}}, "is not a checkpoint of a training run"), ({"epoch": 0, "state_dict": {}}, "missing")],
)
def test_what_is_no_checkpoint_of_this_training_is_refused(run, tmp_path, content, said):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=f"ckpt_path=.*{said}"):
        run("train_gan", *GAN, f"ckpt_path={tmp_path / 'other.ckpt'}")


def test_logits_and_targets_that_differ_in_number_are_named(run):
    with pytest.raises(ValueError, match=r"classifier.network gives \[2, 40\] for 2 images.* 1 names"):
        run("train_classifier", *CLASSIFIER, "data.attributes=[Smiling]", "classifier.network.n_classes=40")


@pytest.mark.parametrize("batch_size", [8, 32])
def test_a_run_goes_on_in_batches_of_another_size_to_as_many_images(run, gan, batch_size):
    path = gan[1] / "checkpoints" / "last.ckpt"
    more = ("max_images=128", f"data.batch_size={batch_size}", f"ckpt_path={path}")
    figures, folder, _ = run("train_gan", *GAN, *more)
    assert figures["num_images"] == 128
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["progress"] == {"num_images": 128, "num_iterations": 4 + 64 // batch_size}
    one, other = (load_file(place / "generator.safetensors")["gen.0.0.weight"] for place in (gan[1], folder))
    assert not torch.equal(one, other)


def test_fewer_images_than_were_trained_on_are_refused(run, gan):
    with pytest.raises(ValueError, match="max_images=32 must be at least 64, what ckpt_path was trained on"):
        run("train_gan", *GAN, "max_images=32", f"ckpt_path={gan[1] / 'checkpoints' / 'last.ckpt'}")


def test_a_resumed_runs_optimizers_work_by_its_own_config(run, gan):
    path = gan[1] / "checkpoints" / "last.ckpt"
    still = ("gan.optimizer_g.lr=0.0", "gan.optimizer_d.lr=1e-3", "gan.optimizer_d.betas=[0.0,0.5]")
    _, folder, cfg = run("train_gan", *GAN, "max_images=128", f"ckpt_path={path}", *still)
    states = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    groups = [state["param_groups"][0] for state in states["optimizer_states"]]
    assert [(group["lr"], tuple(group["betas"])) for group in groups] == [(0.0, (0.5, 0.99)), (1e-3, (0.0, 0.5))]
    before = torch.load(path, weights_only=True)["state_dict"]["generator.gen.0.0.weight"]
    assert torch.equal(states["state_dict"]["generator.gen.0.0.weight"], before)
    with pytest.raises(ValueError, match="ckpt_path was trained by Adam, Adam, which cannot become SGD, Adam"):
        own = ["+gan.optimizer_d={_target_: torch.optim.Adam, _partial_: true, lr: 0.1}"]
        sgd = ["+gan.optimizer_g={_target_: torch.optim.SGD, _partial_: true, lr: 0.1}"]
        run("train_gan", *GAN, "~gan.optimizer_g", "~gan.optimizer_d", *own, *sgd, f"ckpt_path={path}")


def test_figures_say_how_many_images_were_trained_on_not_how_many_were_asked_for(run):
    figures, folder, _ = run("train_classifier", *CLASSIFIER, "max_images=10")
    assert figures["num_images"] == 16  # a whole batch
    figures, folder, _ = run("train_classifier", *CLASSIFIER, "max_images=64", "+trainer.max_steps=2")
    assert figures["num_images"] == 32
    assert json.loads((folder / "classifier.json").read_text())["figures"]["num_images"] == 32


def test_checkpoints_make_no_use_of_the_systems_temporary_folder(run, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))  # where nothing can be written
    _, folder, _ = run("train_gan", *GAN, "max_images=16")
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["progress"]["num_images"] == 16


def test_a_generator_of_another_size_than_the_data_is_refused(run):
    sizes = ["generator=r3gan_small", "generator.network.widths=[16,16,16,16]", "discriminator=sngan", "judge=none"]
    with pytest.raises(ValueError, match="generator.network makes images of 32×32 pixels, and the data's have 64×64"):
        run("train_gan", *sizes, "discriminator.network.hidden_dim=4")
