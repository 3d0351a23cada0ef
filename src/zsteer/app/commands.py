"""The commands, one function each: what a checked config does. torch is imported by the first that needs it."""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from zsteer.app import checks
from zsteer.app.composition import compose, experiments, known_keys
from zsteer.app.main import Check, Command, Outcome, Perform
from zsteer.app.records import read_record
from zsteer.data.attributes import needs_regressor
from zsteer.files import is_bundled, is_main_process
from zsteer.settings import JUDGES, NETWORKS
from zsteer.sweeps.hydra_internals import own_configs

if TYPE_CHECKING:
    from zsteer.app.reproduction import Reproduced
    from zsteer.inversion.results import Inverted
    from zsteer.steering.results import Steered

log = logging.getLogger(__name__)

Successor = Callable[[list[str]], "tuple[Command, list[str]] | None"]


def command(check: Check, successor: Successor = lambda words: None) -> Callable[[Perform], Command]:
    """Make a function of a config and a folder into the command of its name, which refuses keys of others."""

    def made(perform: Perform) -> Command:
        name = perform.__name__

        def checked(cfg: DictConfig) -> None:
            checks.unknown_keys(cfg, known_keys(name))
            checks.switches(cfg)
            check(cfg)

        return Command(name, checked, perform, successor)

    return made


@command(checks.steer)
def steer(cfg: DictConfig, folder: Path | None) -> "Steered":
    """Move noise along one attribute."""
    from zsteer.steering.history import NonFiniteScore
    from zsteer.steering.session import Session
    from zsteer.training.loggers import open_loggers

    with open_loggers(cfg, folder) as loggers:
        session = Session(cfg)
        job = session.job(cfg)
        (history,) = session.steer([job])
        try:
            steered = session.measure(job, history)
        except NonFiniteScore as error:
            if folder is not None and is_main_process():
                error.history.save(folder)
            raise
        if is_main_process():
            steered.log(loggers)
            if folder is not None:
                steered.write(folder)
    return steered


@command(checks.sample)
def sample(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Draw images of a generator."""
    from zsteer.steering.samples import draw_samples

    return draw_samples(cfg, folder)


@command(checks.invert)
def invert(cfg: DictConfig, folder: Path | None, image: Any = None) -> "Inverted":
    """Find the noise whose generated image is nearest to a picture."""
    image = cfg.image if image is None else image  # an object that a caller in Python has
    if image is None:
        raise ValueError("image=null must be the file of a picture, or a folder of pictures")
    from zsteer.inversion.search import invert

    return invert(cfg, folder, image)


@command(checks.explore)
def explore(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Open a live page: sliders that steer faces."""
    assert folder is not None  # this command has no function of Python's
    hydra_cfg, loader = HydraConfig.get(), GlobalHydra.instance().config_loader()
    chosen, words = hydra_cfg.runtime.choices["method"], hydra_cfg.overrides.task
    told = bool(cfg.generator.network.get("names"))
    others = [name for name in loader.get_group_options("method") if name != chosen and (told or name != "condition")]

    def steering(method: str) -> DictConfig:
        job = compose("steer", [f"method={method}"], inside=True)
        for key in (*checks.SHARED_BY_PAGE, *(["method"] if method == chosen else [])):
            job[key] = cfg[key]
        steer.check(job)
        return job

    def inversion() -> DictConfig:
        job = compose("invert", inside=True)
        for key in (*NETWORKS, "trainer", "seed"):
            job[key] = cfg[key]
        invert.check(job)
        return job

    def words_of(method: str) -> list[str]:
        shared = (*NETWORKS, "trainer", "seed=", *(["method."] if method == chosen else []))
        return [word for word in words if word.lstrip("+~").startswith(shared)]

    script = Path(sys.argv[0])
    program = f"python {script.with_name('steer.py')}" if script.suffix == ".py" else "zsteer-steer"
    configs = own_configs()

    def run(words: Sequence[str], folder: Path) -> "Steered":
        return steer.from_python(words, {}, configs, folder, {})

    from zsteer.explore.serving import serve
    from zsteer.explore.studio import Commands

    commands = Commands([chosen, *others], steering, inversion, run, words_of, program, configs)
    serve(cfg, commands, folder)
    raise AssertionError("a page is served until it is interrupted")


@command(checks.train_gan)
def train_gan(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Train a GAN on faces."""
    from zsteer.gan.training import train

    return train(cfg, folder)


@command(checks.train_classifier)
def train_classifier(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Train an attribute classifier, or a judge."""
    from zsteer.classifier.training import train

    return train(cfg, folder)


@command(checks.prepare_data)
def prepare_data(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Convert a data set once into an image store."""
    from zsteer.data.faces import prepare_store

    return prepare_store(cfg)


@command(checks.compare)
def compare(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Compare steering methods at equal judged gain."""
    jobs = {name: [contender(cfg, words, target) for target in cfg.targets] for name, words in cfg.contenders.items()}
    if len({job.edit for own in jobs.values() for job in own}) > 1 and any("+" in target for target in cfg.targets):
        raise ValueError(f"targets={list(cfg.targets)} joins attributes: all contenders must have the same edit")
    one, other = ([cfg[role] and cfg[role].get(key) for key in ("network", "checkpoint")] for role in JUDGES)
    if one == other:
        log.warning("second_judge is left out: it is the judge")
        cfg.second_judge = None
    if cfg.second_judge is not None and is_bundled(cfg.second_judge.get("checkpoint")):
        if not is_bundled(cfg.judge.get("checkpoint")) or any(
            needs_regressor(cfg.judge, target) for target in cfg.targets
        ):
            log.warning("second_judge=bundled is left out: it knows the labels of drawn faces only; give one of yours")
            cfg.second_judge = None
    from zsteer.evaluation.comparison import compare

    return compare(cfg, jobs, folder)


def contender(cfg: DictConfig, words: Sequence[str], target: str) -> DictConfig:
    """The checked config of `steer` for a contender and a target, with the networks that all contenders share."""
    job = compose("steer", [*words, f"target={target}"], inside=True)
    for key in checks.SHARED_BY_CONTENDERS:
        job[key] = cfg[key]
    steer.check(job)
    if not needs_regressor(job.classifier, target):
        job.where = {target: job.edit != "add"}  # from images that lack what is wanted, as the classifier sees them
    return job


@command(checks.directions)
def directions(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Name a source's directions by what the judge sees them do."""
    from zsteer.evaluation.directions import name_directions

    return name_directions(cfg, folder)


# Keys of `evaluate` that naming directions never made use of.
_UNUSED_BY_DIRECTIONS = ("data", "split", "num_images", "seed", "inception")


def _moved_from_evaluate(words: list[str]) -> tuple[Command, list[str]] | None:
    """Comparing methods and naming directions were words of `evaluate`, and still are understood there."""
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    rest = [word for word in words if not word.startswith("what=")]
    if given.get("what") == "directions":
        return directions, [word for word in rest if not re.match(rf"({'|'.join(_UNUSED_BY_DIRECTIONS)})[.=]", word)]
    if given.get("experiment", "").removeprefix("compare/") in experiments("compare"):
        return compare, rest
    if given.get("what") == "methods":
        return compare, rest if "experiment" in given else [*rest, "~experiment"]
    return None


@command(checks.evaluate, _moved_from_evaluate)
def evaluate(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Score a classifier, a judge or a generator."""
    if cfg.what == "generator":
        from zsteer.evaluation.generators import score_generator

        return score_generator(cfg, folder)
    if cfg.what == "codes":
        from zsteer.evaluation.codes import score_codes

        return score_codes(cfg, folder)
    if cfg.what == "conditions":
        from zsteer.evaluation.conditions import score_conditions

        return score_conditions(cfg, folder)
    from zsteer.evaluation.classifiers import score_classifier

    return score_classifier(cfg, folder)


@command(checks.export)
def export(cfg: DictConfig, folder: Path | None) -> Outcome:
    """A generator and a judge as one page that needs no Python."""
    from zsteer.pages.page import export

    return export(cfg, folder)


REPRODUCED = {made.name: made for made in (steer, sample, invert, evaluate, compare, directions)}
REPRODUCED |= {made.name: made for made in (train_gan, train_classifier)}


@command(checks.reproduce)
def reproduce(cfg: DictConfig, folder: Path | None) -> "Reproduced":
    """Make a run again from its folder, and say whether it is the same, bit for bit."""
    from zsteer.app.reproduction import reproduce

    record = read_record(Path(cfg.run), cfg.trust)
    return reproduce(record, REPRODUCED[record.command], folder)


@command(checks.doctor)
def doctor(cfg: DictConfig, folder: Path | None) -> Outcome:
    """Say what of an installation works, and how to mend what does not."""
    from zsteer.app.doctor import examine

    return examine(cfg, folder)


@command(checks.summarize)
def summarize(cfg: DictConfig, folder: Path | None) -> Outcome:
    """A sweep's folder into one table and its pictures."""
    from zsteer.sweeps.summary import summarize

    return summarize(Path(cfg.sweep))
