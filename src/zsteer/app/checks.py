"""What has to be known of a config before torch is loaded: spelling, files, and words that would do nothing.

Classes check their own settings when they are made, which is before any long work too. Every message names the value,
the constraint and the key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from zsteer.data import attributes
from zsteer.data.store import SPLIT_CHOICES
from zsteer.files import recorded_at
from zsteer.settings import MAX_SEED, NETWORKS, choice, existing_file, real_number, whole_number

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
SHARED_BY_CONTENDERS = (*NETWORKS, "num_images", "seed")
NOT_A_CONTENDERS = (*SHARED_BY_CONTENDERS, "where", "noise", "target")


def steer(cfg: DictConfig) -> None:
    """Check the settings of a steering run.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    for key in ("num_steps", "num_images", "show_every"):
        whole_number(cfg[key], key, 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg.penalty_weight, "penalty_weight", minimum=0.0)
    for key in ("step_size", "last_step_size"):
        real_number(cfg[key], key, above=0.0)
    choice(cfg.edit, "edit", tuple(attributes.EDITS))
    choice(cfg.trainer.precision, "trainer.precision", PRECISIONS)
    trainer(cfg, STEERING_WORDS)
    for role in NETWORKS:
        network(cfg, role)
        trained(cfg, role)
    unconditional(cfg)
    names = attributes.steerable(cfg.classifier, "classifier")
    target(cfg.target, cfg.classifier, names)
    if cfg.judge is not None:
        try:
            target(cfg.target, cfg.judge, attributes.steerable(cfg.judge, "judge"), owner="the judge")
        except ValueError as error:
            raise ValueError(f"{error}; or switch the judge off with judge=none") from error
    preserve(cfg.preserve, cfg.target, names)
    until(cfg)
    where(cfg)
    if cfg.noise is not None:
        existing_file(cfg.noise, "noise")


def target(wanted: str, section: Mapping[str, Any], names: Sequence[str], owner: str = "the classifier") -> None:
    """One of the names that a classifier's config section can be asked for, or several of its labels joined by `+`."""
    parts = attributes.joined(wanted, names, owner)
    if not parts:
        attributes.find(wanted, names, owner=owner)
    if len(set(parts)) < len(parts):
        raise ValueError(f"target={wanted} must join different attributes")
    labels = () if attributes.is_regressor(section) else attributes.resolve(section["attributes"])
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


def until(cfg: DictConfig) -> None:
    """A probability where the target is a label, any number where it is a factor, or null."""
    if cfg.until is None:
        return
    real_number(cfg.until, "until")
    factor = attributes.needs_regressor(cfg.classifier, cfg.target) or attributes.is_regressor(cfg.classifier)
    if not factor and not 0 < cfg.until < 1:
        raise ValueError(f"until={cfg.until} must be a probability between 0 and 1; target={cfg.target} is a label")


def where(cfg: DictConfig) -> None:
    """Labels of the classifier, each true or false."""
    if not isinstance(cfg.where, Mapping | DictConfig | None):
        raise ValueError(f"where={cfg.where!r} must map attributes to true or false, as in where={{Male: false}}")
    names = attributes.steerable(cfg.classifier, "classifier")
    if not attributes.needs_regressor(cfg.classifier, cfg.target):
        names = attributes.resolve(cfg.classifier.attributes)
    for name, wanted in (cfg.where or {}).items():
        attributes.find(str(name), names, key="where")
        if not isinstance(wanted, bool):
            raise ValueError(f"where={{{name}: {wanted}}} must say true or false")


def trainer(cfg: DictConfig, words: Mapping[str, str]) -> None:
    """None of Lightning's words that would do nothing."""
    for theirs, ours in words.items():
        if cfg.trainer.get(theirs) not in (None, False):
            remedy = "leave it out" if ours == "none" else f"use {ours}"
            raise ValueError(f"trainer.{theirs}={cfg.trainer[theirs]} cannot be set; {remedy}")


def unconditional(cfg: DictConfig) -> None:
    """A generator whose noise is all noise, as far as the config beside its weights says."""
    path = cfg.generator.get("checkpoint")
    condition = recorded_at(path, "config", "gan", "condition")
    if condition:
        raise ValueError(
            f"generator.checkpoint={path} was trained with gan.condition={condition}: its last numbers are targets, "
            "which only training draws; use a generator without"
        )


def train_gan(cfg: DictConfig) -> None:
    """Check the settings of a GAN's training and of its networks.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    training(cfg, "generator", "discriminator", "judge")
    trained(cfg, "judge")
    # Without float16, whose range a penalty's gradients leave.
    choice(cfg.trainer.precision, "trainer.precision", ("auto", *PRECISIONS))
    trainer(cfg, GAN_WORDS)


def train_classifier(cfg: DictConfig) -> None:
    """Check the settings of a classifier's training.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    training(cfg, "classifier")
    if "max_lr" in cfg.training:  # the module needs the data's names, and these the data, to be made
        real_number(cfg.training.max_lr, "training.max_lr", above=0.0)


def training(cfg: DictConfig, *roles: str) -> None:
    """What every training has, and the networks that take part in it."""
    whole_number(cfg.max_images, "max_images", 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg.checkpoint_minutes, "checkpoint_minutes", above=0.0)
    trainer(cfg, TRAINING_WORDS)
    for role in roles:
        network(cfg, role)
    if cfg.ckpt_path is not None:
        existing_file(cfg.ckpt_path, "ckpt_path")


def prepare_data(cfg: DictConfig) -> None:
    """A data set checks its own settings."""


def evaluate(cfg: DictConfig) -> None:
    """Check the settings of an evaluation.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    choice(cfg.what, "what", ("classifier", "judge", "generator"))
    choice(cfg.split, "split", SPLIT_CHOICES)
    if cfg.inception is not None:
        existing_file(cfg.inception, "inception")
    roles = ["generator", "judge"] if cfg.what == "generator" else [cfg.what]
    needed(cfg, f"what={cfg.what}", roles)


def directions(cfg: DictConfig) -> None:
    """Check the networks whose directions are to be named.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    needed(cfg, "naming directions", NETWORKS)


def compare(cfg: DictConfig) -> None:
    """Check contenders and targets; no contender may have words of its own for what all have to share.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    choice(cfg.split, "split", SPLIT_CHOICES)
    whole_number(cfg.num_images, "num_images", 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    needed(cfg, "a comparison", NETWORKS)
    for key, kind in (("contenders", DictConfig), ("targets", ListConfig)):
        if not cfg[key] or not isinstance(cfg[key], kind):
            example = "targets=[Smiling,Bangs]" if key == "targets" else "experiment=methods"
            raise ValueError(f"{key}={cfg[key]}: a comparison needs some, as in {example}")
    for name, words in cfg.contenders.items():
        if not isinstance(words, ListConfig):
            raise ValueError(f"contenders.{name}={words} must be a list of words, as in [method=ascent,num_steps=40]")
        for word in words:
            key = str(word).lstrip("+~").partition("=")[0].partition(".")[0]
            if key in NOT_A_CONTENDERS:
                raise ValueError(f"contenders.{name}: {word} cannot differ among contenders; give {key} to all")
    kinds = {(attributes.needs_regressor(cfg.judge, target), "+" in target and target) for target in cfg.targets}
    if len(kinds) > 1:  # so that the judge would not be the same for all
        raise ValueError(
            f"targets={list(cfg.targets)} must be all of them labels, or all of them factors, or one that joins several"
        )


def summarize(cfg: DictConfig) -> None:
    """
    Raises:
        ValueError: `sweep` is no path.
    """
    if not isinstance(cfg.sweep, str):
        raise ValueError(f"sweep={cfg.sweep} must be a sweep's folder")


def needed(cfg: DictConfig, by: str, roles: Sequence[str]) -> None:
    """Networks that an evaluation cannot do without; a generator's noise must be all noise."""
    for role in roles:
        network(cfg, role)
        if cfg[role] is None:
            raise ValueError(f"{role}=none: {by} needs one")
        trained(cfg, role)
        if role == "generator":
            unconditional(cfg)


def trained(cfg: DictConfig, role: str) -> None:
    """No network whose answers are reported has the random weights that our classes and torchvision's start with."""
    section = cfg[role]
    if section is None or section.get("checkpoint") is not None or section.network.get("weights") is not None:
        return
    kind = str(section.network._target_)
    if kind.startswith(("zsteer.", "torchvision.")):
        raise ValueError(f"{role}.checkpoint=null leaves {kind} untrained; give the path of trained weights")


def network(cfg: DictConfig, role: str) -> None:
    """A network's section has its `network`, and its checkpoint, if any, is there; only the judge can be none."""
    section = OmegaConf.select(cfg, role)
    if section is None and role == "judge":
        if "judge" not in cfg:
            raise ValueError("judge=null takes the judge out of the config; judge=none switches it off")
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
        real_number(section.regressor.get("scale"), f"{role}.regressor.scale", above=0.0)
