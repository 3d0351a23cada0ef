"""A run's folder is taken wherever a file of it is, and brings its network's settings with it."""

import json
import shutil
from typing import Any

import pytest
import torch
from places import GOLDEN_NETWORKS
from safetensors.torch import load_file

import zsteer
from zsteer.app.composition import compose, in_full
from zsteer.app.handles import put_files
from zsteer.networks.inference import noise_of
from zsteer.runs import is_run

NAMES = ["Smiling", "Male", "Eyeglasses"]
SMALL: dict[str, Any] = {
    "data.num_train": 16,
    "data.num_val": 8,
    "data.num_test": 8,
    "data.batch_size": 8,
    "max_images": 8,
    "trainer": "cpu",
    "trainer.precision": "32-true",
    "trainer.log_every_n_steps": 1,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a GAN's run and of two classifiers', with settings that are not the defaults."""
    root = tmp_path_factory.mktemp("runs (1)")
    common: dict[str, Any] = {**SMALL, "data.root": str(tmp_path_factory.mktemp("data"))}
    gan: dict[str, Any] = {
        "generator.network.z_dim": 8,
        "generator.network.hidden_dim": 2,
        "discriminator.network.hidden_dim": 2,
    }
    zsteer.train_gan("judge=none", folder=root / "gan", **common, **gan)
    classifier: dict[str, Any] = {"data.attributes": NAMES, "classifier.network.n_classes": 3}
    for name, seed in (("classifier", 0), ("judge", 1)):
        more: dict[str, Any] = {"classifier": "residual", "classifier.network.hidden_dim": 4, "seed": seed}
        zsteer.train_classifier(folder=root / name, **common, **classifier, **more)
    return root


@pytest.fixture(scope="module")
def words(runs):
    """What steers by these runs alone."""
    return {role: str(runs / name) for role, name in (("generator", "gan"), ("classifier",) * 2, ("judge",) * 2)}


def test_runs_stand_for_their_networks(words, tmp_path):
    steered = zsteer.steer("trainer=cpu", folder=tmp_path, num_steps=2, num_images=2, target="Male", **words)
    assert steered.history.noise[0].shape == (2, 8) and steered.history.logits[0].shape == (2, 3)
    assert set(steered.side_effects) == {"Smiling", "Eyeglasses"}


def test_edits_can_be_chained(words, tmp_path):
    first = zsteer.steer("trainer=cpu", folder=tmp_path, num_steps=2, num_images=3, target="Male", **words)
    second = zsteer.steer(
        "trainer=cpu", num_steps=1, target="Smiling", edit="remove", noise=str(tmp_path), preserve=["Male"], **words
    )
    torch.testing.assert_close(second.history.noise[0], first.history.noise[-1], rtol=0, atol=0)
    by_file = zsteer.steer("trainer=cpu", num_steps=1, noise=str(tmp_path / "history.safetensors"), **words)
    assert torch.equal(by_file.history.noise[0], second.history.noise[0])


def test_a_run_goes_on_from_its_folder(runs):
    cfg = compose("train_gan", [f"ckpt_path='{runs / 'gan'}'"])
    put_files(cfg)
    assert cfg.ckpt_path == str(runs / "gan" / "checkpoints" / "last.ckpt")


def test_short_words_are_written_in_full(runs, tmp_path, monkeypatch):
    gan, other = runs / "gan", tmp_path / "plain"
    shutil.copytree(gan, other)
    assert in_full("steer", [f"generator={gan}"]) == [f"generator.checkpoint='{gan}'"]
    assert in_full("steer", [f"generator='{gan}'"]) == [f"generator.checkpoint='{gan}'"]
    assert in_full("steer", [f"generator={other},{other}"]) == [f"generator.checkpoint={other},{other}"]
    assert in_full("steer", ["generator=tutorial"]) == ["generator=tutorial"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tutorial").mkdir()
    assert not is_run("tutorial") and is_run("plain") and is_run("./tutorial")


def test_attributes_of_other_data_leave_the_regressor_out(runs):
    cfg = compose("steer", in_full("steer", [f"classifier={runs / 'classifier'}"]))
    put_files(cfg)
    assert list(cfg.classifier.attributes) == NAMES and "regressor" not in cfg.classifier
    assert cfg.classifier.network._target_ == "zsteer.networks.ResidualClassifier"
    assert cfg.classifier.network.hidden_dim == 4
    assert "regressor" in cfg.judge  # which nobody asked to change


def copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    "name", ["os.system", "my_package.Mine", "zsteer.networks.loading.sys.exit", "torchvision.models.resnet.nn.Module"]
)
def test_a_file_names_no_class_that_could_do_anything(name, runs, tmp_path):
    folder = copied(runs / "gan", tmp_path)
    about = json.loads((folder / "generator.json").read_text())
    about["config"]["generator"]["network"] = {"_target_": name}
    (folder / "generator.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=f"was trained with {name}, which is neither"):
        zsteer.steer(generator=str(folder))
    with pytest.raises(ValueError, match=f"was trained with {name}, which is neither"):
        zsteer.load(folder)
    nested = {"_target_": "zsteer.networks.Generator", "z_dim": {"_target_": name}}
    about["config"]["generator"]["network"] = nested
    (folder / "generator.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=f"was trained with {name}, which is neither"):
        zsteer.steer(generator=str(folder))


def test_a_class_that_the_user_names_is_trusted(runs, tmp_path):
    folder = copied(runs / "gan", tmp_path)
    about = json.loads((folder / "generator.json").read_text())
    about["config"]["generator"]["network"] = {"_target_": "mine.Mine", "width": 3}
    (folder / "generator.json").write_text(json.dumps(about))
    cfg = compose("steer", ["generator.network={_target_: mine.Mine}", f"generator.checkpoint={folder}"])
    put_files(cfg)
    assert cfg.generator.network == {"_target_": "mine.Mine", "width": 3}


def test_settings_that_a_run_has_itself_are_refused_beside_it(words):
    with pytest.raises(ValueError, match=r"generator.network.width=8 has no meaning beside generator.checkpoint=.*gan"):
        zsteer.steer("generator.network.width=8", **words)


def test_folders_that_hold_no_such_file_are_named(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"generator.checkpoint=.*classifier: the folder has no generator"):
        zsteer.steer(generator=str(runs / "classifier"))
    with pytest.raises(FileNotFoundError, match="noise=.*: the folder has no noise.safetensors or history.safetensors"):
        zsteer.steer(*GOLDEN_NETWORKS, noise=str(runs / "gan"))
    folder = copied(runs / "gan", tmp_path)
    (folder / "generator.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"go on with that run by ckpt_path={folder}"):
        zsteer.steer(generator=str(folder))


def test_a_folder_that_is_called_like_a_source_is_not_meant_by_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random").mkdir()
    cfg = compose("steer", ["method=direction", "method.source=random"])
    put_files(cfg)
    assert cfg.method.source == "random"


def test_weights_without_a_description_are_named(runs, tmp_path):
    folder = copied(runs / "gan", tmp_path)
    (folder / "generator.json").unlink()
    with pytest.raises(ValueError, match=r"no network is described in .*generator.json"):
        zsteer.steer(generator=str(folder))


def test_a_network_is_loaded_from_its_run(runs):
    generator = zsteer.load(runs / "gan")
    saved = load_file(runs / "gan" / "generator.safetensors")
    assert not generator.training and all(torch.equal(saved[k], v) for k, v in generator.state_dict().items())
    assert zsteer.load(runs / "judge" / "classifier.safetensors")(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        zsteer.load(runs / "nowhere")


def test_samples_of_a_network_or_a_run(runs):
    images = zsteer.sample(runs / "gan", n=5, seed=3)
    generator = zsteer.load(runs / "gan")
    with torch.no_grad():
        expected = generator(noise_of(generator, 5, 3))
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(images, zsteer.sample(generator, n=5, seed=3))
    assert zsteer.sample(n=1).shape == (1, 3, 64, 64)


def test_a_generator_whose_targets_have_no_names_is_refused(runs, words, tmp_path):
    folder = copied(runs / "gan", tmp_path)
    about = json.loads((folder / "generator.json").read_text())
    about["config"]["gan"]["condition"] = 1
    (folder / "generator.json").write_text(json.dumps(about))
    with pytest.raises(
        ValueError, match="was trained with gan.condition=1, and its targets have no names; train it anew"
    ):
        zsteer.sample(folder)
    with pytest.raises(
        ValueError, match="was trained with gan.condition=1, and its targets have no names; train it anew"
    ):
        zsteer.steer(**{**words, "generator": str(folder)})


def test_a_runs_file_of_weights_brings_its_network_unless_words_say_what_it_is(runs):
    file = f"{runs / 'gan'}/generator.safetensors"
    tutorial = "generator=tutorial"
    for more, z_dim in (((), 8), ((tutorial,), 64), ((tutorial, "generator.network.z_dim=7"), 7)):
        words = [f"generator.checkpoint='{file}'", *more]
        cfg = compose("steer", words)
        put_files(cfg, words)
        assert (cfg.generator.checkpoint, cfg.generator.network.z_dim) == (file, z_dim)
