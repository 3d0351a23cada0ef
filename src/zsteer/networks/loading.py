"""Networks from their config groups, with their weights, tried on an input before any long work."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from zsteer.data import attributes
from zsteer.files import recorded_at
from zsteer.networks.checkpoints import load_weights
from zsteer.networks.combined import Conjunction, JoinedClassifier
from zsteer.networks.inference import frozen, z_dim_of
from zsteer.runs import trained_network
from zsteer.settings import real_number, whole_number


@dataclass(frozen=True)
class NamedClassifier:
    """A classifier and the names of its outputs: logits, or standardised numbers where the name is a factor's."""

    network: nn.Module
    names: tuple[str, ...]
    factors: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Networks:
    """The trained networks of a run that steers or inverts; without a judge what it gains stays unconfirmed."""

    generator: nn.Module
    classifier: NamedClassifier
    judge: NamedClassifier | None
    _frozen: dict[tuple[torch.dtype, torch.device], list[nn.Module]] = field(default_factory=dict, repr=False)

    def frozen(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> list[nn.Module]:
        """The generator and the classifier for inference, each form made once."""
        form = (dtype, torch.device(device))
        if form not in self._frozen:
            self._frozen[form] = [frozen(network, *form) for network in (self.generator, self.classifier.network)]
        return self._frozen[form]


def load_networks(cfg: DictConfig, dtype: torch.dtype = torch.float32) -> Networks:
    """The generator, classifier and judge of a config, for its target if it has one.

    The first two are tried in the run's `dtype`.

    Raises:
        ValueError, FileNotFoundError: weights or sizes do not fit; the message names the config group.
    """
    generator = load_network(cfg.generator, "generator")
    images = try_generator(generator, dtype)
    aim = (cfg.get("target"), cfg.get("edit", "add"))
    classifier = load_classifier(cfg.classifier, "classifier", images, *aim)
    judge = None if cfg.judge is None else load_classifier(cfg.judge, "judge", images.float(), *aim)
    return Networks(generator, classifier, judge)


def load_network(section: DictConfig, role: str) -> nn.Module:
    """The network of a config group, in eval mode, with the weights of its checkpoint if it names one.

    Raises:
        ValueError, FileNotFoundError: see `load_weights`; or the class is not a network's.
    """
    refuse_odd_sizes(section.network, f"{role}.network")
    network = instantiate(section.network)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{role}.network={section.network._target_} must be a torch.nn.Module")
    if section.get("checkpoint") is not None:
        load_weights(network, section.checkpoint, section.get("checkpoint_key"), role)
    return network.eval()


def refuse_odd_sizes(section: DictConfig, key: str) -> None:
    """Look at what a network of ours takes, and at what those take that it is made of.

    Raises:
        ValueError: a size or a number that one of our classes takes is none; torch would say something else.
    """
    for name, inner in section.items():
        if isinstance(inner, DictConfig):
            refuse_odd_sizes(inner, f"{key}.{name}")
    target = str(section.get("_target_"))
    if not target.startswith("zsteer."):
        return
    try:
        kind = resolve_name(target)
    except (AttributeError, ImportError, ValueError):  # which Hydra names with its place in the config
        return
    parameters = inspect.signature(kind).parameters if isinstance(kind, type) else {}
    for name, parameter in parameters.items():
        if name in section and parameter.annotation is int:
            whole_number(section[name], f"{key}.{name}", 0 if parameter.default == 0 else 1)
        elif name in section and parameter.annotation is float:
            real_number(section[name], f"{key}.{name}", above=0.0)


def load(path: str | Path) -> nn.Module:
    """The network that a training run left, in eval mode, from the run's folder or from its weights.

    Raises:
        FileNotFoundError, ValueError: see `runs.trained_network` and `load_weights`.
    """
    weights, section = trained_network(Path(path))
    return load_network(OmegaConf.create({**section, "checkpoint": str(weights), "checkpoint_key": None}), "network")


def load_classifier(
    section: DictConfig,
    role: str,
    images: Float[Tensor, "2 3 h w"],
    target: str | None = None,
    edit: str = "add",
    trained: bool = False,
) -> NamedClassifier:
    """The classifier of a config group and its attributes' names, tried on two images.

    Args:
        target: the attribute to be steered; where it is one of the section's `regressor`, that joins the classifier. A
            regressor's section has a `scale` (see `JoinedClassifier`). One that joins several labels is a name more.
        edit: what shall be done to the target.
        trained: it is going to be.

    Raises:
        ValueError, FileNotFoundError: as `load_network`; or not one name for each of its outputs, or in another order
            than the config beside the weights has them.
    """
    names = attributes.resolve(section.attributes, f"{role}.attributes")
    order = recorded_at(section.get("checkpoint"), "config", "classifier", "attributes")
    if isinstance(order, list) and set(order) == set(names) and tuple(order) != names:
        raise ValueError(f"{role}.attributes={list(names)} must be in the order of the training, [{','.join(order)}]")
    network = load_network(section, role)
    logits = attempt(network, images, role, "images", trained)
    if logits.ndim != 2 or logits.shape[1] != len(names):
        raise ValueError(
            f"{role}.network gives {list(logits.shape)} for 2 images, which is not one logit for each of the"
            f" {len(names)} names of {role}.attributes"
        )
    if target is not None and attributes.needs_regressor(section, target):
        regressor = load_classifier(section.regressor, f"{role}.regressor", images)
        joined = JoinedClassifier(network, regressor.network, section.regressor.scale)
        return NamedClassifier(joined, names + regressor.names, regressor.factors)
    if target is not None and (parts := attributes.joined(target, names)):
        network = Conjunction(network, [names.index(part) for part in parts], any_of=edit == "remove")
        names += ("+".join(parts),)
    return NamedClassifier(network, names, frozenset(names if attributes.is_regressor(section) else ()))


def trained_scales(checkpoint: str | None, role: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the continuous targets that a network was trained on, as far as it is recorded.

    Raises:
        ValueError: the record is something else.
    """
    found = recorded_at(checkpoint, "figures", "scales") or {}
    try:
        scales: dict[str, tuple[float, float]] = {
            str(name): (float(mean), float(deviation)) for name, (mean, deviation) in found.items()
        }
        if all(math.isfinite(mean) and 0 < deviation < math.inf for mean, deviation in scales.values()):
            return scales
    except (AttributeError, TypeError, ValueError):
        pass
    raise ValueError(f"{role}.checkpoint={checkpoint}: the JSON beside it has figures.scales that are no scales")


def try_generator(
    generator: nn.Module, dtype: torch.dtype = torch.float32, trained: bool = False
) -> Float[Tensor, "2 3 h w"]:
    """Two images of a generator, which may be going to be trained.

    Raises:
        ValueError: it makes something else.
    """
    images = attempt(generator, torch.zeros(2, z_dim_of(generator), dtype=dtype), "generator", "noise", trained)
    if images.ndim != 4 or images.shape[:2] != (2, 3):
        raise ValueError(
            f"generator.network must map noise [n, z_dim] to images [n, 3, H, W], not to {list(images.shape)}"
        )
    return images


@torch.enable_grad()
def attempt(network: Callable[[Tensor], Tensor], inputs: Tensor, role: str, what: str, trained: bool = False) -> Tensor:
    """What a network gives.

    Args:
        trained: it is going to be, for which it has to compute gradients.

    Raises:
        ValueError: an error of its own, or something else than a tensor; the message names the config group.
    """
    try:
        if isinstance(network, nn.Module) and inputs.dtype != torch.float32:
            network = frozen(network, inputs.dtype)
        output = network(inputs)
    except Exception as error:  # whatever somebody's network may raise, the remedy is theirs
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        shape = f"{list(inputs.shape)} ({str(inputs.dtype).removeprefix('torch.')})"
        raise ValueError(f"{role}.network cannot take {what} of shape {shape}: {reason}") from error
    if not isinstance(output, Tensor):
        raise ValueError(f"{role}.network must return one tensor, not a {type(output).__name__}")
    if trained and not output.requires_grad:
        raise ValueError(without_gradients(role))
    return output.detach()


def without_gradients(role: str) -> str:
    """What is wrong with a network whose output has none."""
    return f"{role}.network computes without gradients, as under torch.no_grad or after detach; let it compute them"
