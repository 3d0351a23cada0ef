"""Every config composes, every group's choice instantiates, and a typo fails."""

from pathlib import Path

import hydra
import pytest
import torch
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from zsteer.methods import Method
from zsteer.run import CONFIGS, compose

SCRIPTS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
NEEDED = {"summarize": ["sweep=nowhere"]}


def choices(group: str) -> list[str]:
    names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    assert names
    return names


def test_each_script_has_a_config_and_each_config_a_script():
    scripts = sorted(path.stem for path in (Path(__file__).parents[1] / "scripts").glob("*.py"))
    assert scripts == SCRIPTS
    assert len(scripts) == 6


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
    method = instantiate(cfg.method)
    assert isinstance(method, Method)
    assert method.name == choice
    assert cfg.num_steps >= 1
    assert cfg.step_size > 0


@pytest.mark.parametrize("choice", choices("trainer"))
def test_each_trainer_composes(choice):
    trainer = compose("train_gan", [f"trainer={choice}"]).trainer
    assert trainer._target_ == "pytorch_lightning.Trainer"


@pytest.mark.parametrize("name", choices("experiment"))
def test_each_experiment_sets_keys_that_its_script_has(name):
    trained = "train_classifier" if name.endswith(("classifier", "judge", "regressor")) else "train_gan"
    scripts = {"methods": "evaluate", "default": "evaluate", "tutorial": "steer", "sweep": "steer"}
    script = scripts.get(name.partition("_")[0], trained)
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = hydra.compose(script, [f"experiment={name}"], return_hydra_config=True)
    assert cfg.hydra.runtime.choices.experiment == name
    assert {key for key in cfg if key != "hydra"} <= set(compose(script))
    sections = [cfg[role] for role in ("generator", "discriminator", "classifier") if role in cfg]
    networks = [section for section in sections if not OmegaConf.is_missing(section.network, "_target_")]
    assert all(isinstance(instantiate(section.network), nn.Module) for section in networks)
    if "training" in cfg:
        assert callable(instantiate(cfg.training.optimizer))
    if "gan" in cfg:
        networks = {role: instantiate(cfg[role].network) for role in ("generator", "discriminator")}
        assert isinstance(instantiate(cfg.gan, **networks), nn.Module)


def test_the_tutorial_is_as_published():
    cfg = compose("steer", ["experiment=tutorial"])
    assert (cfg.num_steps, cfg.step_size, cfg.penalty_weight, cfg.show_every) == (10, 0.1, 0.1, 2)
    assert (cfg.num_images, cfg.generator.network.z_dim, cfg.generator.network.hidden_dim) == (8, 64, 64)
    (group,) = instantiate(cfg.method).optimizer([nn.Parameter()]).param_groups
    assert (group["lr"], group["momentum"]) == (1, 1)


@pytest.mark.parametrize("typo", ["targt=Smiling", "trainer.precison=64-true", "generator.network.zdim=3"])
def test_a_misspelt_key_fails(typo):
    with pytest.raises(ConfigCompositionException):
        compose("steer", [typo])
