"""What has to be known of a config before torch is loaded: spelling, files, and words that would do nothing.

Classes check their own settings when they are made, which is before any long work too. Every message names the value,
the constraint and the key.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from zsteer.app import records, trainer_words
from zsteer.data import attributes
from zsteer.data.photos import photo_files
from zsteer.data.store import SPLIT_CHOICES
from zsteer.files import is_bundled, recorded_at
from zsteer.pages.runtime import REMEDY, read_runtime
from zsteer.settings import (
    JUDGES,
    LIMITS,
    MAX_SEED,
    NETWORKS,
    as_typed,
    choice,
    existing_file,
    flag,
    real_number,
    whole_number,
)
from zsteer.steering.figures import MEANINGS, NUMBERS, UNJUDGED

PRECISIONS = ("32-true", "64-true", "bf16-mixed")

# What the keys of some sections are; those of the others are their classes' own, which refuse what they do not know.
NETWORK_KEYS = ("network", "checkpoint", "checkpoint_key", "attributes", "regressor", "scale")
RUN_KEYS = ("num_steps", "step_size", "show_every", "preserve")
SCORES_KEYS = ("every_images", "num_samples", "split", "inception")
EXTRAS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "RichProgressBar": "rich"}  # of classes, as of packages
MOST = 1_000_000  # of images and of steps: what is listed and drawn
MOST_FACES = 16  # on a page
# What our classes take true or false for: any other word would be taken for true.
SWITCHES = (
    "color",
    "compiled",
    "cuda_graphs",
    "cutout",
    "download",
    "flip",
    "normalised",
    "on_shell",
    "paired",
    "spectral",
)
SWITCHES += ("translation", "unit")
SHARED_BY_CONTENDERS = (*NETWORKS, "num_images", "seed")
SHARED_BY_PAGE = (*SHARED_BY_CONTENDERS, "trainer", "target", "penalty_weight", "condition")
NOT_A_CONTENDERS = {  # and the remedy
    **{key: f"give {key} to all" for key in SHARED_BY_CONTENDERS},
    **dict.fromkeys(("where", "condition", "noise", "target"), "all start from the same faces"),
    "record_every": "of each every step is judged",
}


def steer(cfg: DictConfig) -> None:
    """Check the settings of a steering run.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    for key in ("num_steps", "num_images", "show_every", "record_every", "max_rows"):
        whole_number(cfg[key], key, 1, MOST)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg.penalty_weight, "penalty_weight", minimum=0.0)
    for key in ("step_size", "last_step_size"):
        if cfg[key] != "auto":
            real_number(cfg[key], key, above=0.0)
    choice(cfg.edit, "edit", tuple(attributes.EDITS))
    choice(cfg.trainer.precision, "trainer.precision", PRECISIONS)
    trainer_words.check(cfg.trainer, trainer_words.STEERING)
    unknown_keys(cfg, RUN_KEYS, "method.run")
    instantiable(cfg, "logger")
    for role in NETWORKS:
        network(cfg, role)
        trained(cfg, role)
    names = attributes.steerable(cfg.classifier, "classifier")
    spelled(cfg.target, "target")
    target(cfg.target, cfg.classifier, names)
    if cfg.judge is not None:
        try:
            target(cfg.target, cfg.judge, attributes.steerable(cfg.judge, "judge"), owner="the judge")
        except ValueError as error:
            raise ValueError(f"{error}; or switch the judge off with judge=none") from error
    preserve(cfg.preserve, cfg.target, names)
    until(cfg)
    where(cfg)
    condition(cfg)
    objective(cfg.objective, UNJUDGED if cfg.judge is None else tuple(MEANINGS))
    if cfg.method.get("_target_") == "zsteer.steering.methods.OfCondition":
        entry(cfg)
    if cfg.noise is not None:
        existing_file(cfg.noise, "noise")


def objective(wanted: Any, figures: Sequence[str]) -> None:
    """Null, the name of a figure, or a list of names; whether a figure is known is seen at the end."""
    names = wanted if isinstance(wanted, ListConfig) else [wanted]
    if wanted is not None and not (names and all(isinstance(name, str) for name in names)):
        raise ValueError(
            f"objective={wanted} must be the name of a figure, or a list of names, as objective=gain_judge"
        )
    for name in names if wanted is not None else ():
        choice(name, "objective", (*figures, *NUMBERS))


def unknown_keys(cfg: DictConfig, known: Collection[str], path: str = "") -> None:
    """No key of the config, or of its section at `path`, that nothing reads, be it an interpolation."""
    section = OmegaConf.select(cfg, path) if path else cfg
    for key in section or ():
        full = f"{path}.{key}" if path else str(key)
        if key in known or re.search(rf"\$\{{[^}}]*\b{re.escape(full)}\b", OmegaConf.to_yaml(cfg)):
            continue
        near = get_close_matches(str(key), known, 1)
        remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"{full}={OmegaConf.select(cfg, full)} is used by nothing; {remedy}")


def switches(cfg: DictConfig, path: str = "") -> None:
    """What our classes have to switch on or off is true or false, in the config and in its sections."""
    own = str(cfg.get("_target_")).startswith("zsteer.")
    for key in map(str, cfg):
        if OmegaConf.is_missing(cfg, key):
            continue
        if own and key in SWITCHES:
            flag(cfg[key], f"{path}{key}")
        elif not OmegaConf.is_interpolation(cfg, key) and isinstance(cfg[key], DictConfig):
            switches(cfg[key], f"{path}{key}.")


def instantiable(cfg: DictConfig, group: str) -> None:
    """The loggers or callbacks, by names of theirs: each has a class, which is installed."""
    if cfg.run_folder is not None:
        raise ValueError(f"run_folder={cfg.run_folder} is the run's own; name it by hydra.run.dir, in Python by folder")
    for name, section in (cfg.get(group) or {}).items():
        if section is None:
            continue
        kind = section.get("_target_") if isinstance(section, DictConfig) else None
        if kind is None:
            raise ValueError(f"{group}.{name}={section} has no _target_, its class; choose one, as in {group}=[{name}]")
        extra = EXTRAS.get(str(kind).rpartition(".")[2])
        if extra is not None and find_spec(extra) is None:
            raise ValueError(f"{group}.{name} needs {extra}: pip install 'zsteer[{extra}]'")


def without_folder(cfg: DictConfig) -> None:
    """Nothing that writes into the run's folder where there is none, but TensorBoard, which is not asked for."""
    for group in ("logger", "callbacks"):
        for name, section in (cfg.get(group) or {}).items():
            if name != "tensorboard" and "${run_folder}" in OmegaConf.to_yaml(OmegaConf.create({"": section})):
                raise ValueError(f"{group}.{name} writes into the run's folder; name one by folder=")


def spelled(value: Any, key: str) -> None:
    """A name, and not a number, which YAML makes of a label that is called like one."""
    if not isinstance(value, str):
        raise ValueError(f"{key}={value} must be a name; of a label that is called so, write '{value}', with quotes")


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
    """`auto`, or labels of the classifier, each true or false."""
    if cfg.where == "auto":
        return
    if not isinstance(cfg.where, Mapping | DictConfig | None):
        example = "as in where={Male: false}"
        raise ValueError(f"where={cfg.where!r} must be auto, or map attributes to true or false, {example}")
    names = attributes.steerable(cfg.classifier, "classifier")
    if not attributes.needs_regressor(cfg.classifier, cfg.target):
        names = attributes.resolve(cfg.classifier.attributes)
    for name, wanted in (cfg.where or {}).items():
        attributes.find(str(name), names, key="where")
        if not isinstance(wanted, bool):
            raise ValueError(f"where={{{name}: {wanted}}} must say true or false")


def unnamed(path: Any) -> None:
    """No generator that an earlier version trained with a number of targets, whose names nobody knows."""
    count = recorded_at(path, "config", "gan", "condition")
    if isinstance(count, int) and count > 0:
        raise ValueError(
            f"generator.checkpoint={path} was trained with gan.condition={count}, and its targets have no names; train "
            "it anew with gan.condition=[...]"
        )


def condition(cfg: DictConfig) -> None:
    """What a conditional generator is told: attributes and their values, none of which `where` looks for too."""
    if not isinstance(cfg.condition, Mapping | DictConfig | None):
        example = "as in condition={Smiling: true}"
        raise ValueError(f"condition={cfg.condition} must map attributes to their values, {example}")
    sought = cfg.get("where")
    names = list(sought) if isinstance(sought, Mapping | DictConfig) else []
    for name, value in (cfg.condition or {}).items():
        if any(attributes.colliding([str(name), str(other)]) for other in names):
            said = as_typed("condition", {name: value})
            raise ValueError(f"{said} tells the generator what where looks for; keep one")


def entry(cfg: DictConfig) -> None:
    """A target that the generator is conditioned on, where it is moved by that."""
    names = cfg.generator.network.get("names")
    if not names:
        raise ValueError("method=condition needs a generator that was trained with gan.condition")
    attributes.find(cfg.target, names, owner="what the generator is told")


def sample(cfg: DictConfig) -> None:
    """Check what is to be drawn.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    whole_number(cfg.num_images, "num_images", 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    needed(cfg, "a picture", ["generator"])
    condition(cfg)
    if cfg.noise is not None:
        existing_file(cfg.noise, "noise")


def train_gan(cfg: DictConfig) -> None:
    """Check the settings of a GAN's training and of its networks.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    told = cfg.gan.get("condition")
    if told:
        attributes.resolve(told, "gan.condition")
    training(cfg, trainer_words.GAN, "generator", "discriminator", "judge")
    if "supervised" in (cfg.gan.regularizers or {}):
        network(cfg, "classifier")
        trained(cfg, "classifier")
    if told and cfg.data.get("attributes") is not None:
        raise ValueError(
            f"data.attributes={cfg.data.attributes} has no meaning beside gan.condition, a GAN's only targets"
        )
    trained(cfg, "judge")
    # Without float16, whose range a penalty's gradients leave.
    choice(cfg.trainer.precision, "trainer.precision", ("auto", *PRECISIONS))
    unknown_keys(cfg, SCORES_KEYS, "scores")


def train_classifier(cfg: DictConfig) -> None:
    """Check the settings of a classifier's training.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    training(cfg, trainer_words.TRAINING, "classifier")
    flag(cfg.balanced, "balanced")
    scheduler = OmegaConf.select(cfg, "training.scheduler._target_")
    if scheduler is not None and "Plateau" in scheduler:
        raise ValueError(f"training.scheduler={scheduler} goes by epochs, and a training is one; use schedule=")
    if "max_lr" in cfg.training:  # the module needs the data's names, and these the data, to be made
        real_number(cfg.training.max_lr, "training.max_lr", above=0.0)


def training(cfg: DictConfig, refused: Mapping[str, str], *roles: str) -> None:
    """What every training has, and the networks that take part in it."""
    whole_number(cfg.max_images, "max_images", 1)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg.checkpoint_minutes, "checkpoint_minutes", above=0.0)
    trainer_words.check(cfg.trainer, refused)
    for group in ("logger", "callbacks"):
        instantiable(cfg, group)
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
    choice(cfg.what, "what", ("classifier", "judge", "generator", "codes", "conditions"))
    choice(cfg.split, "split", SPLIT_CHOICES)
    if cfg.inception is not None:
        existing_file(cfg.inception, "inception")
    if cfg.attributes is not None and (not isinstance(cfg.attributes, ListConfig) or not cfg.attributes):
        raise ValueError(f"attributes={cfg.attributes} must be a list of the judge's, as in attributes=[Smiling]")
    roles = ["generator", "judge"] if cfg.what in ("generator", "codes", "conditions") else [cfg.what]
    if cfg.what == "codes" and not isinstance(cfg.regressor, DictConfig):
        raise ValueError(f"regressor={cfg.regressor} must have a _target_, one of scikit-learn's regressors")
    if cfg.what == "codes" and find_spec("sklearn") is None:
        raise ValueError("what=codes needs scikit-learn: pip install 'zsteer[codes]'")
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
    whole_number(cfg.num_images, "num_images", 1, MOST)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    needed(cfg, "a comparison", NETWORKS)
    if cfg.second_judge is not None:
        needed(cfg, "a second opinion", ["second_judge"])
    if not isinstance(cfg.limits, ListConfig):
        raise ValueError(f"limits={cfg.limits} must be a list, as in limits=[drawn,optimum]")
    for word in cfg.limits:
        choice(word, "limits", tuple(LIMITS))
    for key, kind in (("contenders", DictConfig), ("targets", ListConfig)):
        if not cfg[key] or not isinstance(cfg[key], kind):
            example = "targets=[Smiling,Bangs]" if key == "targets" else "experiment=methods"
            raise ValueError(f"{key}={cfg[key]}: a comparison needs some, as in {example}")
    for name, words in cfg.contenders.items():
        if name in LIMITS.values():
            raise ValueError(f"contenders.{name}={words} must have another name: that one is a limit's")
        if not isinstance(words, ListConfig):
            raise ValueError(f"contenders.{name}={words} must be a list of words, as in [method=ascent,num_steps=40]")
        for word in words:
            key = str(word).lstrip("+~").partition("=")[0].partition(".")[0]
            if key in NOT_A_CONTENDERS:
                raise ValueError(f"contenders.{name}: {word} cannot differ among contenders; {NOT_A_CONTENDERS[key]}")
    for wanted in cfg.targets:
        spelled(wanted, "targets")
    if same := attributes.colliding(cfg.targets):
        raise ValueError(f"targets={list(cfg.targets)}: {same[0]} and {same[1]} are the same attribute; keep one")
    kinds = {(attributes.needs_regressor(cfg.judge, target), "+" in target and target) for target in cfg.targets}
    if len(kinds) > 1:  # so that the judge would not be the same for all
        raise ValueError(
            f"targets={list(cfg.targets)} must be all of them labels, or all of them factors, or one that joins several"
        )
    if cfg.second_judge is not None and not is_bundled(cfg.second_judge.get("checkpoint")):
        for wanted in cfg.targets:
            try:
                target(wanted, cfg.second_judge, attributes.steerable(cfg.second_judge, "second_judge"), "second_judge")
            except ValueError as error:
                raise ValueError(f"{error}; or switch it off with second_judge=none") from error


def invert(cfg: DictConfig) -> None:
    """Check the settings of an inversion.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    if cfg.image is not None:
        photo_files(str(cfg.image), "image")
    whole_number(cfg.num_samples, "num_samples", 2)
    for key in ("num_steps", "max_rows"):
        whole_number(cfg[key], key, 1)
    whole_number(cfg.starts, "starts", 1, cfg.num_samples)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg.feature_weight, "feature_weight", minimum=0.0)
    if cfg.optimizer is None:
        raise ValueError("optimizer=null: an inversion needs one")
    if "lr" in cfg.optimizer:
        real_number(cfg.optimizer.lr, "optimizer.lr", above=0.0)
    if not 0 < real_number(cfg.shell, "shell") <= 1:
        raise ValueError(f"shell={cfg.shell} must be a share of the samples, above 0 and at most 1")
    on_one_device(cfg, trainer_words.INVERSION, "rows are not shared by devices here")


def on_one_device(cfg: DictConfig, refused: Mapping[str, str], reason: str) -> None:
    """Precision, the Trainer's arguments and the networks of a command that cannot use several devices."""
    choice(cfg.trainer.precision, "trainer.precision", ("32-true", "64-true"))
    trainer_words.check(cfg.trainer, refused)
    if cfg.trainer.get("devices", 1) not in (1, "1"):
        raise ValueError(f"trainer.devices={cfg.trainer.devices} must be 1: {reason}")
    for role in NETWORKS:
        network(cfg, role)
        trained(cfg, role)


def export(cfg: DictConfig) -> None:
    """Check the settings of a page, where it goes, and what it needs.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    if any(find_spec(package) is None for package in ("onnx", "onnxruntime", "onnxscript")):
        raise ValueError("zsteer-export needs ONNX: pip install 'zsteer[explore]'")
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg.penalty_weight, "penalty_weight", minimum=0.0)
    flag(cfg.overwrite, "overwrite")
    needed(cfg, "a page", NETWORKS)
    if not isinstance(cfg.sliders, ListConfig | None):
        raise ValueError(f"sliders={cfg.sliders} must be a list of the classifier's, as in sliders=[Smiling,Bangs]")
    names = attributes.resolve(cfg.classifier.attributes)
    wanted = list(cfg.sliders or ())
    columns = [attributes.find(str(name), names, key="sliders") for name in wanted]
    if len(set(columns)) < len(columns):
        raise ValueError(f"sliders={wanted} must be different attributes")
    if cfg.page is not None:
        new_page(Path(str(cfg.page)), cfg.overwrite)
    if cfg.runtime is None:
        raise ValueError(f"runtime=null: a page needs ONNX Runtime Web inside; {REMEDY}")
    read_runtime(Path(str(cfg.runtime)))


def new_page(path: Path, overwrite: bool) -> None:
    """A file that a browser takes for a page, in a folder that can be written; none that must not be replaced."""
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"page={path} must be the name of a page, as in page={path / 'page.html'}")
    if path.exists() and not (overwrite and path.is_file()):
        remedy = "name another" if path.is_dir() else "name another, or give overwrite=true"
        raise ValueError(f"page={path} is there already; {remedy}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"page={path}: there is no folder {path.parent}; make it first")
    try:
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"page={path} cannot be written ({error.strerror}); name another folder") from error


def explore(cfg: DictConfig) -> None:
    """Check what the live page begins with, and where it is served.

    Raises:
        ValueError, FileNotFoundError: one line for the first setting that is wrong.
    """
    if find_spec("gradio") is None:
        raise ValueError("explore needs Gradio: pip install 'zsteer[explore]'")
    whole_number(cfg.num_images, "num_images", 1, MOST_FACES)
    real_number(cfg.path_memory, "path_memory", above=0.0)
    whole_number(cfg.seed, "seed", 0, MAX_SEED)
    real_number(cfg.penalty_weight, "penalty_weight", minimum=0.0)
    if not isinstance(cfg.host, str) or not cfg.host:
        raise ValueError(f"host={cfg.host} must be the name or the address of this machine, as in host=127.0.0.1")
    if cfg.port is not None:
        whole_number(cfg.port, "port", 1, 65535)
    on_one_device(cfg, trainer_words.STEERING, "a page steers in one process")
    spelled(cfg.target, "target")
    for role in ("classifier", "judge"):
        if cfg[role] is not None:
            attributes.find(cfg.target, attributes.steerable(cfg[role], role), owner=f"the {role}")
    condition(cfg)
    if cfg.noise is not None:
        existing_file(cfg.noise, "noise")


def reproduce(cfg: DictConfig) -> None:
    """Check that a run can be made again.

    Raises:
        ValueError, FileNotFoundError: see `records.read_record`.
    """
    if not isinstance(cfg.run, str):
        raise ValueError(f"run={cfg.run} must be a run's folder")
    records.read_record(Path(cfg.run), flag(cfg.trust, "trust"))


def doctor(cfg: DictConfig) -> None:
    """What is wrong is the command's to find."""


def summarize(cfg: DictConfig) -> None:
    """
    Raises:
        ValueError: `sweep` is no path.
    """
    if not isinstance(cfg.sweep, str):
        raise ValueError(f"sweep={cfg.sweep} must be a sweep's folder")


def needed(cfg: DictConfig, by: str, roles: Sequence[str]) -> None:
    """Networks that an evaluation cannot do without."""
    for role in roles:
        network(cfg, role)
        if cfg[role] is None:
            raise ValueError(f"{role}=none: {by} needs one")
        trained(cfg, role)


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
    if role == "generator" and isinstance(section, DictConfig) and not OmegaConf.is_missing(section, "checkpoint"):
        unnamed(section.get("checkpoint"))
    if section is None and role == "judge":
        if "judge" not in cfg:
            raise ValueError("judge=null takes the judge out of the config; judge=none switches it off")
        return
    if not isinstance(section, DictConfig) or OmegaConf.select(section, "network._target_") is None:
        raise ValueError(f"{role}.network._target_ is missing; name the class of the {role}")
    unknown_keys(cfg, NETWORK_KEYS, role)
    if role.partition(".")[0] in ("classifier", *JUDGES) and section.get("attributes") is None:
        raise ValueError(f"{role}.attributes is missing; give 'celeba' or the list of names of its outputs")
    if OmegaConf.is_missing(section, "checkpoint"):
        raise ValueError(f"{role}.checkpoint is missing; give the path of the {role}'s weights")
    if section.get("checkpoint") is not None:
        existing_file(section.checkpoint, f"{role}.checkpoint")
    if section.get("regressor") is not None:
        network(cfg, f"{role}.regressor")
        real_number(section.regressor.get("scale"), f"{role}.regressor.scale", above=0.0)
