"""Controllable generation: move a GAN's input noise so that one attribute changes and nothing else does.

Each command of the command line is a function here. All take the words that one would type after it, or settings by
name, as in `steer("method=projected", target="Smiling", num_images=4)`. They give their result as an object, and raise
ValueError or FileNotFoundError, with one line that names the setting, where something is wrong. `config_dir` is a
folder with configs of your own, as after `--config-dir`. A run's files are written only where `folder` is given (data
sets have their store and reference logits their cache all the same), and nothing of the caller's is changed: Hydra's
state, random numbers, environment variables, warning filters.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zsteer.app.reproduction import Reproduced
    from zsteer.data.faces import Prepared
    from zsteer.evaluation.comparison import Compared
    from zsteer.evaluation.directions import NamedDirections
    from zsteer.evaluation.results import Scores
    from zsteer.inversion.results import Inverted
    from zsteer.pages.page import Page
    from zsteer.steering.results import Steered
    from zsteer.sweeps.summary import Summary
    from zsteer.training.results import Trained

__version__ = "0.1.0"

Folder = str | Path | None


def _call(
    command: str,
    words: tuple[str, ...],
    settings: dict[str, Any],
    config_dir: Folder,
    folder: Folder,
    **objects: Any,
) -> Any:
    numbers = random.getstate()  # which some libraries draw from when they are imported
    try:
        from zsteer.app import commands  # Hydra, which `import zsteer` need not wait for

        return getattr(commands, command).from_python(words, settings, config_dir, folder, objects)
    finally:
        random.setstate(numbers)


def steer(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Steered":
    """Move noise along one attribute."""
    return _call("steer", words, settings, config_dir, folder)


def load(path: str | Path) -> "nn.Module":
    """The network that a training run left, in eval mode, from the run's folder or its weights."""
    from zsteer.networks import loading

    return loading.load(path)


def sample(
    generator: "nn.Module | str | Path | None" = None,
    n: int = 16,
    seed: int = 0,
    condition: "Mapping[str, Any] | None" = None,
) -> "Tensor":
    """Images `[n, 3, H, W]` in [-1, 1] of a generator: a network, a run's folder, weights, or the bundled one.

    `steer` starts from the same with this seed, where it takes any.

    Args:
        condition: what a generator of `gan.condition` is told, as in `{"Smiling": True}`; the rest is as in the data.

    Raises:
        ValueError: the generator cannot be told so.
    """
    from zsteer.app.checks import unnamed
    from zsteer.files import BUNDLE
    from zsteer.networks.inference import images_of, noise_of
    from zsteer.runs import trained_network
    from zsteer.settings import MAX_SEED, whole_number

    n, seed = whole_number(n, "n", 1), whole_number(seed, "seed", 0, MAX_SEED)
    if generator is None or isinstance(generator, str | Path):
        weights, _ = trained_network(Path(generator or BUNDLE / "generator.safetensors"))
        unnamed(weights)
        generator = load(weights)
    return images_of(generator, noise_of(generator, n, seed, condition))


def invert(image: Any, *words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Inverted":
    """Find the noise whose generated image is nearest to a picture.

    Args:
        image: a picture's file or a folder of pictures; a picture of Pillow's; or a tensor or an array `[3, h, w]` or
            `[n, 3, h, w]` in [-1, 1], of the generator's size.
    """
    if isinstance(image, str | Path):
        return _call("invert", words, {**settings, "image": image}, config_dir, folder)
    return _call("invert", words, settings, config_dir, folder, image=image)


def train_gan(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Trained":
    """Train a GAN; the result's network is the averaged generator. Without a folder no checkpoint is kept."""
    return _call("train_gan", words, settings, config_dir, folder)


def train_classifier(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Trained":
    """Train an attribute classifier, a judge or a regressor. Without a folder no checkpoint is kept."""
    return _call("train_classifier", words, settings, config_dir, folder)


def evaluate(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Scores":
    """Score a classifier, a judge or a generator."""
    return _call("evaluate", words, settings, config_dir, folder)


def compare(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Compared":
    """Compare steering methods at equal judged gain."""
    return _call("compare", words, settings, config_dir, folder)


def directions(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "NamedDirections":
    """Name a source's directions by what the judge sees them do."""
    return _call("directions", words, settings, config_dir, folder)


def export(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Page":
    """A generator and a judge as one page that needs no Python; `page` names its file."""
    return _call("export", words, settings, config_dir, folder)


def reproduce(run: str | Path, trust: bool = False, config_dir: Folder = None, folder: Folder = None) -> "Reproduced":
    """Make a run again from its folder, and say whether it is the same, bit for bit.

    Args:
        trust: also run classes that the run's config names and zsteer's own configs do not: they are code.
    """
    return _call("reproduce", (), {"run": str(run), "trust": trust}, config_dir, folder)


def prepare_data(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Prepared":
    """Convert a data set once into an image store."""
    return _call("prepare_data", words, settings, config_dir, folder)


def summarize(*words: str, config_dir: Folder = None, folder: Folder = None, **settings: Any) -> "Summary":
    """A sweep's folder into one table and its pictures, which are written there."""
    return _call("summarize", words, settings, config_dir, folder)
