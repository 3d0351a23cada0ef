"""How a classifier's logits vary over unsteered samples: the unit in which steering is measured.

The logits of 2,048 samples of a generator are computed once for each pair of networks and kept, under the networks'
fingerprints: the bundle's in the package, everyone else's in the user's cache folder.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from zsteer.files import BUNDLE, atomic_write, cache_folder, is_main_process
from zsteer.networks.combined import Conjunction
from zsteer.networks.fingerprints import fingerprint
from zsteer.networks.inference import BATCH_SIZE, check_finite, frozen, noise_of, z_dim_of
from zsteer.networks.memory import in_parts

NUM_SAMPLES = 2048
SEED = 0
BUNDLED = BUNDLE / "reference"

Device = torch.device | str

log = logging.getLogger(__name__)


def reference_logits(
    generator: nn.Module, classifiers: Sequence[nn.Module], device: Device = "cpu"
) -> list[Float[Tensor, "samples k"]]:
    """The logits `[2048, K]` of each classifier, in float32, over the same samples of the generator (seed 0)."""
    # What a conjunction says follows from the logits of what it is of.
    measured = [each.classifier if isinstance(each, Conjunction) else each for each in classifiers]
    names = [f"{fingerprint(generator)}-{fingerprint(classifier)}.safetensors" for classifier in measured]
    widths = num_outputs(generator, measured)
    kept = {name: _load(name, width) for name, width in zip(names, widths, strict=True)}
    known = {name: logits for name, logits in kept.items() if logits is not None}
    missing = [i for i, name in enumerate(names) if name not in known]
    if missing:
        log.info("measuring %d classifier(s) over %d unsteered samples, once", len(missing), NUM_SAMPLES)
        logits = compute_logits(generator, [measured[i] for i in missing], device)
        computed = dict(zip((names[i] for i in missing), logits, strict=True))
        _keep(computed)
        known |= computed
    found = zip(classifiers, (known[name] for name in names), strict=True)
    return [each.of(logits) if isinstance(each, Conjunction) else logits for each, logits in found]


def reference_noise(generator: nn.Module) -> Float[Tensor, "samples z_dim"]:
    """The noise of the samples."""
    return noise_of(generator, NUM_SAMPLES, SEED)


@torch.no_grad()
def num_outputs(generator: nn.Module, classifiers: Sequence[nn.Module]) -> list[int]:
    """How many logits each classifier gives for an image of the generator."""
    generator, *classifiers = (frozen(network, torch.float32) for network in (generator, *classifiers))
    image = generator(torch.zeros(1, z_dim_of(generator)))
    return [classifier(image).shape[1] for classifier in classifiers]


@torch.no_grad()
def compute_logits(
    generator: nn.Module, classifiers: Sequence[nn.Module], device: Device = "cpu"
) -> list[Float[Tensor, "samples k"]]:
    """The same, computed.

    Raises:
        ValueError: an image is NaN or infinite.
    """
    noise = reference_noise(generator)
    generator, *classifiers = (frozen(network, torch.float32, device) for network in (generator, *classifiers))

    def of(z: Tensor) -> list[Tensor]:
        images = generator(z.to(device))
        check_finite("generator", images)
        return [classifier(images).cpu() for classifier in classifiers]

    def joined(batches: list[list[Tensor]]) -> list[Tensor]:
        return [torch.cat(logits) for logits in zip(*batches, strict=True)]

    # Seconds on a GPU, a minute or two without.
    parts = tqdm(noise.split(BATCH_SIZE), "Measuring unsteered samples", leave=False, disable=not is_main_process())
    return joined([in_parts(lambda part, z=z: of(z[part]), len(z), joined) for z in parts])


def _load(name: str, width: int) -> Tensor | None:
    path = BUNDLED / name
    try:
        if not path.is_file():
            path = cache_folder() / name
        logits = load_file(path).get("logits")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (SafetensorError, OSError):
        logits = None
    if logits is not None and (logits.dtype, *logits.shape) == (torch.float32, NUM_SAMPLES, width):
        return logits
    log.warning("%s is damaged; measuring again", path)
    return None


def _keep(computed: Mapping[str, Tensor]) -> None:
    try:
        folder = cache_folder()
        for name, logits in computed.items():
            save_logits(folder / name, logits)
    except OSError as error:
        log.warning("the reference logits could not be kept (%s); set XDG_CACHE_HOME", error)


def save_logits(path: Path, logits: Tensor) -> None:
    """Write reference logits as a safetensors file."""
    with atomic_write(path) as temporary:
        save_file({"logits": logits.contiguous()}, temporary)
