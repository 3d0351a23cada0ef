"""What a config must satisfy, checked before torch is loaded and before any long work.

Every message names the value, the constraint and the key.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from zsteer import attributes
from zsteer.files import beside

EDITS = {"add": 1.0, "remove": -1.0}
MAX_SEED = 2**32 - 1  # of NumPy's generators, which training seeds too
NUM_NEIGHBOURS = 3  # that precision and recall look at, and so need one image more
DIRECTION_SOURCES = ("gradient", "boundary", "sefa", "ganspace", "random")
SCHEDULED = ("lr", "beta2")
COUPLED_OPTIMIZERS = ("LBFGS", "Adafactor", "Muon")  # a number's step depends on the others'
NETWORKS = ("generator", "classifier", "judge")
PRECISIONS = ("32-true", "64-true", "bf16-mixed")

# Lightning's words that we set ourselves or have no use for, and ours in their place.
STEERING_WORDS = {
    **dict.fromkeys(("max_epochs", "max_steps", "max_time", "limit_train_batches"), "num_steps"),
    **dict.fromkeys(("logger", "enable_checkpointing", "fast_dev_run"), "none"),
}
TRAINING_WORDS = {
    "max_epochs": "max_images",
    "enable_checkpointing": "checkpoint_minutes",
    **dict.fromkeys(("logger", "callbacks", "use_distributed_sampler"), "none"),
}
GAN_WORDS = {  # automatic optimization's, which cannot know of two optimizers
    "accumulate_grad_batches": "gan.accumulate",
    "gradient_clip_val": "gan.clip_norm",
    "max_steps": "max_images",
    "min_steps": "max_images",
}
CONTENDERS_WORDS = ("generator", "classifier", "judge", "num_images", "seed", "where", "noise", "target")


def steer(cfg: DictConfig) -> None:
    """Check the settings of a steering run.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    for key in ("num_steps", "num_images", "show_every"):
        whole_number(cfg[key], key, 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg, "penalty_weight", minimum=0.0)
    for key in ("step_size", "last_step_size"):
        real_number(cfg, key, above=0.0)
    choice(cfg, "edit", tuple(EDITS))
    choice(cfg, "trainer.precision", PRECISIONS)
    trainer(cfg, STEERING_WORDS)
    for role in NETWORKS:
        network(cfg, role)
    unconditional(cfg)
    names = attributes.steerable(cfg.classifier, "classifier")
    target(cfg.target, cfg.classifier, names)
    if cfg.judge is not None:
        try:
            target(cfg.target, cfg.judge, attributes.steerable(cfg.judge, "judge"), owner="the judge")
        except ValueError as error:
            raise ValueError(f"{error}; or switch the judge off with judge=none") from error
    preserve(cfg.preserve, cfg.target, names)
    if cfg.until is not None:
        real_number(cfg, "until")
        factor = attributes.needs_regressor(cfg.classifier, cfg.target) or "scale" in cfg.classifier
        if not factor and not 0 < cfg.until < 1:
            raise ValueError(f"until={cfg.until} must be a probability between 0 and 1; target={cfg.target} is a label")
    method(cfg)
    if not isinstance(cfg.where, Mapping | DictConfig | None):
        raise ValueError(f"where={cfg.where!r} must map attributes to true or false, as in where={{Male: false}}")
    if not attributes.needs_regressor(cfg.classifier, cfg.target):
        names = attributes.resolve(cfg.classifier.attributes)
    for name, wanted in (cfg.where or {}).items():
        attributes.find(str(name), names, key="where")
        if not isinstance(wanted, bool):
            raise ValueError(f"where={{{name}: {wanted}}} must say true or false")
    if cfg.noise is not None:
        existing_file(cfg.noise, "noise")


def target(wanted: str, section: Mapping[str, Any], names: Sequence[str], owner: str = "the classifier") -> None:
    """One of the names that a classifier's config section can be asked for, or several of its labels joined by `+`."""
    parts = attributes.joined(wanted, names, owner)
    if not parts:
        attributes.find(wanted, names, owner=owner)
    if len(set(parts)) < len(parts):
        raise ValueError(f"target={wanted} must join different attributes")
    labels = () if "scale" in section else attributes.resolve(section["attributes"])
    if factors := [part for part in parts if part not in labels]:
        raise ValueError(f"target={wanted} joins {factors[0]}, which is a factor; only labels can be joined")


def preserve(wanted: Any, target: str, names: Sequence[str]) -> None:
    """`all`, `others`, or a list of attributes without the target."""
    if isinstance(wanted, str):
        if wanted not in ("all", "others"):
            raise ValueError(f"preserve={wanted} must be all, others or a list of attributes")
        return
    if not isinstance(wanted, Sequence | ListConfig):
        raise ValueError(f"preserve={wanted} must be all, others or a list of attributes")
    columns = [attributes.find(str(name), names, key="preserve") for name in wanted]
    if any(attributes.find(part, names) in columns for part in attributes.joined(target, names) or (target,)):
        raise ValueError(f"preserve={list(wanted)} must not name the target, {target}")


def method(cfg: DictConfig) -> None:
    """The settings that methods have beyond the names of classes."""
    for key, least in {"refresh_every": 1, "num_probes": 1, "num_pairs": 0}.items():
        if key in cfg.method:
            whole_number(cfg.method[key], f"method.{key}", least)
    for key in ("image_weight", "global_weight", "pull", "radius"):
        if key in cfg.method:
            real_number(cfg, f"method.{key}", minimum=0.0)
    if "source" in cfg.method:
        source(cfg.method.source, "method.source")
    optimizer = str(OmegaConf.select(cfg, "method.optimizer._target_"))
    if optimizer.rpartition(".")[2] in COUPLED_OPTIMIZERS:
        raise ValueError(
            f"method.optimizer._target_={optimizer} must step each number by itself, as torch.optim.Adam does, or an "
            "image's steps would depend on the others'"
        )


def trainer(cfg: DictConfig, words: Mapping[str, str]) -> None:
    """None of Lightning's words that would do nothing."""
    for theirs, ours in words.items():
        if cfg.trainer.get(theirs) not in (None, False):
            remedy = "leave it out" if ours == "none" else f"use {ours}"
            raise ValueError(f"trainer.{theirs}={cfg.trainer[theirs]} cannot be set; {remedy}")


def unconditional(cfg: DictConfig) -> None:
    """A generator whose noise is all noise, as far as the config beside its weights says."""
    path = cfg.generator.get("checkpoint")
    condition = beside(path).get("config", {}).get("gan", {}).get("condition", 0)
    if condition:
        raise ValueError(
            f"generator.checkpoint={path} was trained with gan.condition={condition}: its last numbers are targets, "
            "which only training draws; use a generator without"
        )


def source(wanted: Any, key: str) -> None:
    """Where directions come from: a word, or a file."""
    if wanted not in DIRECTION_SOURCES and not Path(str(wanted)).is_file():
        choices = ", ".join(DIRECTION_SOURCES)
        raise ValueError(f"{key}={wanted} must be one of {choices}, or a .safetensors file that exists")


def train(cfg: DictConfig, *roles: str) -> None:
    """Check the settings of a training run and of the networks that it trains.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    for key in ("max_images", "data.batch_size"):
        whole_number(OmegaConf.select(cfg, key), key, 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg, "checkpoint_minutes", above=0.0)
    trainer(cfg, TRAINING_WORDS)
    if "gan" in cfg:
        gan(cfg)
    for role in roles:
        network(cfg, role)
    if cfg.ckpt_path is not None:
        existing_file(cfg.ckpt_path, "ckpt_path")


def gan(cfg: DictConfig) -> None:
    """The settings that only a GAN has."""
    for key in ("samples_every", "gan.discriminator_steps", "gan.penalty_every", "gan.accumulate"):
        whole_number(OmegaConf.select(cfg, key), key, 1)
    whole_number(cfg.gan.condition, "gan.condition", 0)
    for key in ("r1_gamma", "r2_gamma", "gp_weight"):
        if not isinstance(cfg.gan[key], DictConfig):  # which a schedule is
            real_number(cfg, f"gan.{key}", minimum=0.0)
    if not isinstance(cfg.gan.ema_half_life, DictConfig):
        real_number(cfg, "gan.ema_half_life", above=0.0)
    for name in cfg.gan.schedules:
        if name not in SCHEDULED:
            raise ValueError(f"gan.schedules.{name} must be one of {', '.join(SCHEDULED)}")
    if cfg.gan.clip_norm is not None:
        real_number(cfg, "gan.clip_norm", above=0.0)
    choice(cfg, "trainer.precision", ("auto", *PRECISIONS))  # never fp16: a penalty's gradients leave its range
    parts = cfg.gan.accumulate
    if cfg.data.batch_size % parts:
        raise ValueError(f"gan.accumulate={parts} must divide data.batch_size={cfg.data.batch_size}")
    trainer(cfg, GAN_WORDS)
    network(cfg, "judge")
    choice(cfg, "scores.split", ("train", "val", "test", "all"))
    whole_number(cfg.scores.every_images, "scores.every_images", 1)
    whole_number(cfg.scores.num_samples, "scores.num_samples", NUM_NEIGHBOURS + 1)
    if cfg.scores.inception is not None:
        existing_file(cfg.scores.inception, "scores.inception")


def evaluate(cfg: DictConfig) -> None:
    """Check the settings of an evaluation.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    choice(cfg, "what", ("classifier", "judge", "generator", "methods", "directions"))
    choice(cfg, "split", ("train", "val", "test", "all"))
    whole_number(cfg.num_images, "num_images", NUM_NEIGHBOURS + 1 if cfg.what == "generator" else 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    if cfg.inception is not None:
        existing_file(cfg.inception, "inception")
    source(cfg.source, "source")
    roles = {"generator": ("generator", "judge"), "methods": NETWORKS, "directions": NETWORKS}
    for role in roles.get(cfg.what, (cfg.what,)):
        if cfg[role] is None:
            raise ValueError(f"{role}=none: what={cfg.what} needs one")
        network(cfg, role)
        if role == "generator":
            unconditional(cfg)
    if cfg.what == "methods":
        comparison(cfg)


def comparison(cfg: DictConfig) -> None:
    """Contenders and targets, and no contender with words of its own for what all have to share."""
    for key, kind in (("contenders", DictConfig), ("targets", ListConfig)):
        if not cfg[key] or not isinstance(cfg[key], kind):
            example = "targets=[Smiling,Bangs]" if key == "targets" else "experiment=methods"
            raise ValueError(f"{key}={cfg[key]}: what=methods needs some, as in {example}")
    for name, words in cfg.contenders.items():
        if not isinstance(words, ListConfig):
            raise ValueError(f"contenders.{name}={words} must be a list of words, as in [method=ascent,num_steps=40]")
        for word in words:
            key = str(word).lstrip("+~").partition("=")[0].partition(".")[0]
            if key in CONTENDERS_WORDS:
                raise ValueError(f"contenders.{name}: {word} cannot differ among contenders; give {key} to all")


def network(cfg: DictConfig, role: str) -> None:
    """A network's section has its `network`, and its checkpoint, if any, is there; only the judge can be none."""
    section = OmegaConf.select(cfg, role)
    if section is None and role == "judge":
        return
    if section is None or OmegaConf.select(section, "network._target_") is None:
        raise ValueError(f"{role}.network._target_ is missing; name the class of the {role}")
    if role.partition(".")[0] in ("classifier", "judge") and section.get("attributes") is None:
        raise ValueError(f"{role}.attributes is missing; give 'celeba' or the list of names of its outputs")
    if OmegaConf.is_missing(section, "checkpoint"):
        raise ValueError(f"{role}.checkpoint is missing; give the path of the {role}'s weights")
    if section.get("checkpoint") is not None:
        existing_file(section.checkpoint, f"{role}.checkpoint")
    if section.get("regressor") is not None:
        network(cfg, f"{role}.regressor")
        real_number(cfg, f"{role}.regressor.scale", above=0.0)


def existing_file(value: Any, key: str) -> None:
    """A path to a file."""
    if not Path(str(value)).is_file():
        raise FileNotFoundError(f"{key}={value}: no such file")


def choice(cfg: DictConfig, key: str, choices: Sequence[str]) -> None:
    """One of a few words."""
    value = OmegaConf.select(cfg, key)
    if value not in choices:
        raise ValueError(f"{key}={value} must be one of {', '.join(choices)}")


def whole_number(value: Any, key: str, least: int, most: int | None = None) -> int:
    """Return `value` if it is an integer in [least, most]."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{key}={value} must be a whole number, {limits}")
    return value


def real_number(cfg: DictConfig, key: str, minimum: float | None = None, above: float | None = None) -> None:
    """A finite number that is at least `minimum` or greater than `above`."""
    value = OmegaConf.select(cfg, key)
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not number or (minimum is not None and value < minimum) or (above is not None and value <= above):
        bounds = {", {:g} or more": minimum, ", greater than {:g}": above}
        bound = "".join(words.format(limit) for words, limit in bounds.items() if limit is not None)
        raise ValueError(f"{key}={value} must be a finite number{bound}")
