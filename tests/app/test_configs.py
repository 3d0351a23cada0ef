"""Every config composes, every group's choice instantiates, and a typo fails."""

import inspect
import re

import hydra
import pytest
import torch
import yaml
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from places import ROOT
from pytorch_lightning.loggers import Logger
from torch import nn

from zsteer.app.checks import SWITCHES, switches, unknown_keys
from zsteer.app.composition import CONFIGS, compose, experiments, in_full, known_keys, own_hydra
from zsteer.gan.schedules import Cosine
from zsteer.status import describe
from zsteer.steering.methods import Method, method_of
from zsteer.training.fitting import chosen_callbacks

SCRIPTS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
NEEDED = {"summarize": ["sweep=nowhere"], "reproduce": ["run=nowhere"]}


def choices(group: str) -> list[str]:
    names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    assert names
    return names


def test_each_script_has_a_config_and_each_config_a_script():
    scripts = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
    assert scripts == SCRIPTS
    assert {"steer", "train_gan", "train_classifier", "evaluate", "prepare_data", "summarize", "sample"} <= set(scripts)


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_primary_config_resolves(name):
    cfg = compose(name, NEEDED.get(name, []))
    assert OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, choice) for group in ("generator", "classifier", "judge", "discriminator") for choice in choices(group)],
)
def test_each_network_instantiates(group, choice):
    name = "train_gan" if group == "discriminator" else "steer"
    section = compose(name, [f"{group}={choice}"])[group]
    if choice == "none":
        assert section is None
    else:
        assert isinstance(instantiate(section.network), nn.Module)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_networks_follow_the_size_of_the_data(size):
    words = ["data=folder", "data.images=photos", f"data.size={size}", "experiment=r3gan_small", "judge=residual"]
    cfg = compose("train_gan", [*words, "judge.attributes=[hat,smile]"])
    generator, discriminator, judge = (
        instantiate(cfg[role].network) for role in ("generator", "discriminator", "judge")
    )
    images = generator(torch.zeros(2, 64))
    assert images.shape == (2, 3, size, size)
    assert discriminator(images).shape == (2,)
    assert judge(images).shape == (2, 2)


def test_a_size_that_networks_cannot_follow_is_refused():
    cfg = compose("train_gan", ["data=folder", "data.images=photos", "data.size=100", "generator=r3gan"])
    with pytest.raises(InterpolationResolutionError) as error:
        instantiate(cfg.generator.network)
    assert describe(error.value) == "data.size=100 must be one of 8, 16, 32, 64, 128, 256, or give network.widths"


@pytest.mark.parametrize("choice", ["tutorial", "residual", "resnet18"])
def test_a_classifier_has_an_output_for_each_name(choice):
    network = instantiate(
        compose("steer", [f"classifier={choice}", "classifier.attributes=[a,b,c]"]).classifier.network
    )
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("choice", choices("gan_loss"))
def test_any_loss_can_have_any_penalty(choice):
    penalties = {"r1_gamma": 1, "r2_gamma": 0.5, "gp_weight": 2, "penalty_every": 3, "discriminator_steps": 2}
    cfg = compose("train_gan", [f"gan_loss={choice}", *(f"gan.{key}={value}" for key, value in penalties.items())])
    assert {key: cfg.gan[key] for key in penalties} == penalties
    loss = instantiate(cfg.gan.loss)
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])
    values = loss.discriminator(real, fake), loss.generator(*((fake, real) if loss.paired else (fake,)))
    assert all(value.isfinite() for value in values)


@pytest.mark.parametrize("choice", choices("method"))
def test_each_method_instantiates_and_is_called_what_its_file_is(choice):
    cfg = compose("steer", [f"method={choice}"])
    method = method_of(cfg.method)
    assert isinstance(method, Method)
    assert method.name == choice
    assert cfg.num_steps >= 1
    assert cfg.step_size == "auto" or cfg.step_size > 0


@pytest.mark.parametrize("choice", choices("trainer"))
def test_each_trainer_composes(choice):
    trainer = compose("train_gan", [f"trainer={choice}"]).trainer
    assert trainer._target_ == "pytorch_lightning.Trainer"


@pytest.mark.parametrize("choice", sorted(set(choices("regularizer")) - {"none"}))
def test_the_weight_of_each_regularizer_may_be_a_schedule(choice):
    schedule = "{_target_: zsteer.gan.schedules.Cosine, start: 0, end: 0.5, num_images: 100}"
    words = [f"regularizer={choice}", f"gan.regularizers.{choice}.weight={schedule}"]
    weight = instantiate(compose("train_gan", words).gan.regularizers[choice]).weight
    assert isinstance(weight, Cosine) and weight.at(100) == 0.5


EXPERIMENTS = [(script, name) for script in SCRIPTS for name in experiments(script)]


def test_experiments_are_grouped_by_script():
    assert len(EXPERIMENTS) > 20
    assert {path.parent.name for path in (CONFIGS / "experiment").rglob("*.yaml")} <= set(SCRIPTS)


@pytest.mark.parametrize(("script", "name"), EXPERIMENTS)
def test_each_experiment_sets_keys_that_its_script_has(script, name):
    with own_hydra():
        cfg = hydra.compose(script, in_full(script, [f"experiment={name}"]), return_hydra_config=True)
    assert cfg.hydra.runtime.choices.experiment == f"{script}/{name}"
    assert {key for key in cfg if key != "hydra"} <= set(compose(script))
    sections = [cfg[role] for role in ("generator", "discriminator", "classifier") if role in cfg]
    networks = [section for section in sections if not OmegaConf.is_missing(section.network, "_target_")]
    assert all(isinstance(instantiate(section.network), nn.Module) for section in networks)
    if "training" in cfg:
        assert callable(instantiate(cfg.training.optimizer))
    if "gan" in cfg:
        networks = {role: instantiate(cfg[role].network) for role in ("generator", "discriminator")}
        assert isinstance(instantiate(cfg.gan, **networks), nn.Module)


def test_a_script_knows_its_own_experiments_by_their_names_alone():
    assert in_full("steer", ["experiment=tutorial,mine", "target=Male"]) == [
        "experiment=steer/tutorial,mine",
        "target=Male",
    ]
    with pytest.raises(MissingConfigException):
        compose("train_gan", ["experiment=tutorial"])


def test_each_key_of_steer_stands_in_its_config():
    keys = yaml.safe_load((CONFIGS / "steer.yaml").read_text())
    contract = ("target", "edit", "penalty_weight", "num_steps", "step_size", "num_images", "seed", "where", "noise")
    assert {
        *contract,
        "show_every",
        "record_every",
        "max_rows",
        "preserve",
        "until",
        "last_step_size",
        "objective",
    } <= set(keys)


def test_the_discriminators_optimizer_follows_the_generators_until_it_has_its_own():
    cfg = compose("train_gan", ["gan.optimizer_g.lr=1e-3", "gan.optimizer_g.betas=[0,0.9]"]).gan
    assert (cfg.optimizer_d.lr, list(cfg.optimizer_d.betas)) == (1e-3, [0, 0.9])
    cfg = compose("train_gan", ["gan.optimizer_d.lr=4e-4"]).gan
    assert (cfg.optimizer_g.lr, cfg.optimizer_d.lr) == (2e-4, 4e-4)


def test_the_tutorial_is_as_published():
    cfg = compose("steer", ["experiment=tutorial"])
    assert (cfg.num_steps, cfg.step_size, cfg.penalty_weight, cfg.show_every) == (10, 0.1, 0.1, 2)
    assert (cfg.num_images, cfg.generator.network.z_dim, cfg.generator.network.hidden_dim) == (8, 64, 64)
    (group,) = method_of(cfg.method).optimizer([nn.Parameter()]).param_groups
    assert (group["lr"], group["momentum"]) == (1, 1)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_keys_of_a_script_are_read_from_its_file_alone(name):
    assert known_keys(name) == set(compose(name, NEEDED.get(name, [])))


def test_a_new_key_that_others_are_written_with_is_used():
    words = ["+width=8", "generator.network.hidden_dim=${width}", "+wdth=8"]
    cfg = compose("train_gan", words)
    with pytest.raises(ValueError, match="wdth=8 is used by nothing"):
        unknown_keys(cfg, known_keys("train_gan"))
    unknown_keys(compose("train_gan", words[:2]), known_keys("train_gan"))


@pytest.mark.parametrize("choice", choices("logger"))
def test_each_logger_instantiates(choice, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    cfg = compose("train_gan", [f"logger={choice}", f"run_folder={tmp_path}"])
    assert set(cfg.logger) == ({choice} if choice != "none" else set())
    assert all(isinstance(instantiate(section), Logger) for section in cfg.logger.values())


@pytest.mark.parametrize("choice", choices("callbacks"))
def test_each_callback_instantiates(choice, tmp_path):
    cfg = compose("train_gan", [f"callbacks={choice}", f"run_folder={tmp_path}"])
    assert set(cfg.callbacks) == ({choice} if choice != "none" else set())
    assert len(chosen_callbacks(cfg, ["fid_judge"])) == len(cfg.callbacks)


@pytest.mark.parametrize("typo", ["targt=Smiling", "trainer.precison=64-true", "generator.network.zdim=3"])
def test_a_misspelt_key_fails(typo):
    with pytest.raises(ConfigCompositionException):
        compose("steer", [typo])


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("prepare_data", "data.flip=maybe"),
        ("prepare_data", "data.flip=1"),
        ("prepare_data", "data.download=maybe"),
        ("train_classifier", "balanced=maybe"),
        ("train_gan", "gan.compiled=maybe"),
        ("train_gan", "gan.loss.paired=maybe"),
        ("train_gan", "discriminator.network.spectral=maybe"),
        ("steer", "method.on_shell=maybe"),
        ("steer", "method.unit=maybe"),
    ],
)
def test_what_is_neither_true_nor_false_is_refused(command, script, word):
    choices = {
        "data.download": "data=celeba",
        "gan.loss.paired": "gan_loss=r3gan",
        "discriminator.network.spectral": "discriminator=sngan",
    }
    choices |= {"method.unit": "method=ascent"}
    choice = choices.get(word.partition("=")[0])
    ended = command(script, *([choice] if choice else []), word)
    assert (ended.code, ended.err.splitlines()[-1]) == (1, f"error: {word} must be true or false")


def test_the_switches_are_those_of_the_classes_that_configs_name():
    texts = [path.read_text() for path in CONFIGS.rglob("*.yaml")]
    names = {name for text in texts for name in re.findall(r"_target_: (zsteer\.[\w.]+)", text)}
    made = [get_object(name) for name in (*names, "zsteer.gan.augmentation.DiffAugment")]  # of the README
    bases = [base for kind in made if isinstance(kind, type) for base in kind.__mro__ if "zsteer" in base.__module__]
    parameters = [parameter for base in bases for parameter in inspect.signature(base).parameters.values()]
    assert {parameter.name for parameter in parameters if parameter.annotation is bool} == set(SWITCHES)


def test_a_class_of_ones_own_takes_what_words_it_likes():
    section = {"_target_": "mine.Data", "flip": "sideways"}
    switches(OmegaConf.create({"data": section, "also": "${data.flip}", "missing": "???", "not_there": "${nowhere}"}))
