"""Load weights from whatever file they come in, without running what a pickle asks for; save them whole."""

import hashlib
import inspect
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zsteer import attributes
from zsteer.files import whole, write_json

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class NamedClassifier:
    """A classifier and the names of its logits."""

    network: nn.Module
    names: tuple[str, ...]


# What data-parallel wrappers and torch.compile put before each key.
_WRAPPERS = ("module.", "_orig_mod.")


def load_network(section: DictConfig, role: str) -> nn.Module:
    """The network of a config group, in eval mode, with the weights of its checkpoint if it names one.

    Raises:
        ValueError, FileNotFoundError: see `load_weights`; or the class is not a network's.
    """
    network = instantiate(section.network)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{role}.network={section.network._target_} must be a torch.nn.Module")
    if section.get("checkpoint") is not None:
        load_weights(network, section.checkpoint, section.get("checkpoint_key"), role)
    return network.eval()


def load_classifier(section: DictConfig, role: str) -> NamedClassifier:
    """The classifier of a config group and its attributes' names."""
    names = attributes.resolve(section.attributes, f"{role}.attributes")
    return NamedClassifier(load_network(section, role), names)


def load_weights(network: nn.Module, path: str | Path, key: str | None = None, role: str = "network") -> nn.Module:
    """Load `path` into `network` strictly and return the network.

    Args:
        path: `.safetensors`, or what `torch.save` or Lightning wrote (`.pth`, `.pt`, `.ckpt`, `.tar`; any device).
        key: the entry that holds the state dict, or the name under which a Lightning module holds the network; None
            finds it where only one fits.
        role: config group that errors name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, refused, without the key, or of another architecture.
    """
    where = f"{role}.checkpoint={path}"
    state = _select(_read(Path(path), where), set(network.state_dict()), key, where, role)
    _check_same(state, network.state_dict(), where, role)
    network.load_state_dict(state)
    return network


def save_weights(
    network: nn.Module, path: str | Path, config: Mapping[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write the state dict as safetensors (floating tensors as `dtype`) and `config` beside it as JSON."""
    state = {
        name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    with whole(path) as temporary:
        save_file(state, temporary)
    write_json(Path(path).with_suffix(".json"), config)


def fingerprint(network: nn.Module) -> str:
    """16 hex digits that change with the network's class, structure, weights and (outside zsteer) source."""
    kind = type(network)
    digest = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__}\n{network!r}".encode())
    if not kind.__module__.startswith("zsteer."):
        digest.update(_source(kind).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # defined in a prompt or a frozen program: weights and structure must do
        return ""


def _read(path: Path, where: str) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{where}: no such file")
    if path.stat().st_size == 0:
        raise ValueError(f"{where}: the file is empty; copy it again")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Never mmap=True: the old format, which published files still have, cannot be mapped.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where}: {_refusal(error)}") from error
    except (SafetensorError, RuntimeError, EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{where}: not a readable checkpoint, or truncated ({_first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: holds a {type(content).__name__}, not a dict of tensors; save a state_dict()")
    return content


def _refusal(error: pickle.UnpicklingError) -> str:
    if "Unsupported global" in str(error) or "unsupported GLOBAL" in str(error):
        named = next((word for word in str(error).split() if "." in word and word != "torch.load"), "")
        return f"refused: the file would run code when loaded ({named.strip('`,')}); save a plain state_dict() instead"
    return f"not a readable checkpoint ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, Tensor) for item in value.values())


def _select(content: Mapping[str, Any], expected: set[str], key: str | None, where: str, role: str) -> StateDict:
    """The state dict in a checkpoint's content whose keys, prefixes stripped, are the network's."""
    content = content if key in content or not _is_state(content.get("state_dict")) else content["state_dict"]
    if key is not None and _is_state(content.get(key)):
        return _strip(content[key], expected)
    states = {"": content} if _is_state(content) else {name: v for name, v in content.items() if _is_state(v)}
    if key is not None:
        inside = {name: tensor for name, tensor in states.get("", {}).items() if name.startswith(f"{key}.")}
        if not inside:
            known = sorted(states) if "" not in states else sorted({name.split(".")[0] for name in content})
            raise ValueError(f"{where}: no entry {key!r}; {role}.checkpoint_key can be one of {known}")
        return _strip({name.removeprefix(f"{key}."): tensor for name, tensor in inside.items()}, expected)
    found = {name: _strip(state, expected) for name, state in states.items()}
    fitting = {name: state for name, state in found.items() if set(state) == expected} or found
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    raise ValueError(f"{where}: give {role}.checkpoint_key, one of {sorted(fitting) or sorted(map(str, content))}")


def _strip(state: Mapping[str, Tensor], expected: set[str]) -> StateDict:
    """Take off wrappers' prefixes and, where it takes that to fit, the name of the module around the network."""
    for prefix in _WRAPPERS * 2:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    state = {_unwrapped(name): tensor for name, tensor in state.items()}
    if set(state) & expected:
        return state
    first = min(expected)
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    if len(prefixes) == 1:
        inside = {name: tensor for name, tensor in state.items() if name.startswith(prefixes[0])}
        return {name.removeprefix(prefixes[0]): tensor for name, tensor in inside.items()}
    return dict(state)


def _unwrapped(name: str) -> str:
    """A compiled part inside a module leaves its prefix in the middle of the key."""
    return name.replace("._orig_mod.", ".").removeprefix("_orig_mod.")


def _check_same(state: StateDict, expected: Mapping[str, Tensor], where: str, role: str) -> None:
    missing = sorted(set(expected) - set(state))
    unexpected = sorted(set(state) - set(expected))
    misshapen = [
        f"{name} {list(state[name].shape)} for {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if parts:
        raise ValueError(f"{where} does not fit {role}.network: {'; '.join(parts)}; check {role}.network's settings")
