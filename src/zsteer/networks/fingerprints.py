"""What a network is known by: its classes, their settings and its weights."""

import hashlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import ListConfig
from torch import Tensor, nn

_BARE = frozenset(vars(nn.Module()))  # what every module has
_LIBRARIES = ("torch", "torchvision")


def fingerprint(network: nn.Module) -> str:
    """16 hex digits of all that a network computes with: weights, buffers, classes, settings, and others' source.

    It is the same under another release of torch or zsteer: a library's class is known by its name, wherever in the
    library it stands, and by the arguments that differ from their defaults. So a class of zsteer's that shall compute
    something else from the same settings needs another name.
    """
    digest = hashlib.sha256()
    for name, module in network.named_modules():
        kind = type(module)
        digest.update(f"{name} {_package(kind)}.{kind.__qualname__} {_settings(module)}".encode())
    for source in sorted({_source(type(module)) for module in network.modules()}):
        digest.update(source.encode())
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _settings(module: nn.Module) -> dict[str, Any]:
    """A module's settings, by name; of torch's, which may get new attributes, those that were asked for."""
    kept = {name: _plain(value) for name, value in vars(module).items() if name not in _BARE}
    if _package(type(module)) not in _LIBRARIES:
        return dict(sorted(kept.items()))
    arguments = inspect.signature(type(module).__init__).parameters
    return {
        name: kept[name]
        for name in sorted(arguments)
        if name in kept and kept[name] != arguments[name].default and name != "inplace"
    }


def _plain(value: Any) -> Any:
    """A setting as numbers and text, the same in every process; of a tensor the hash of its bytes."""
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list | ListConfig | set | frozenset):
        parts = [_plain(part) for part in value]
        if isinstance(value, set | frozenset):
            parts.sort(key=repr)
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
        return f"{value.dtype} {list(value.shape)} {hashlib.sha256(_bytes(value)).hexdigest()}"
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    return getattr(value, "__qualname__", type(value).__qualname__)  # a function's or a class's, else its kind's


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.flatten().view(torch.uint8).numpy().tobytes()


def _source(kind: type) -> str:
    """The file in which somebody's own network is written; a library's classes are known by their names."""
    if _package(kind) in (*_LIBRARIES, "zsteer"):
        return ""
    try:
        return inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError, KeyError):  # written in a prompt or a frozen program
        return ""
