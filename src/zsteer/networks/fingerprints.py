"""What a network is known by: its classes, their settings and its weights."""

import hashlib
import inspect
import sys
from typing import Any

import torch
from torch import nn

# Settings that a network keeps as attributes of its modules, and what every module has anyway.
_PLAIN = (bool, int, float, str, tuple, type(None))
_BARE = frozenset(vars(nn.Module()))
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
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _settings(module: nn.Module) -> dict[str, Any]:
    """A module's settings, by name; of torch's, which may get new attributes, those that were asked for."""
    kept = {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN) and name not in _BARE}
    if _package(type(module)) not in _LIBRARIES:
        return dict(sorted(kept.items()))
    arguments = inspect.signature(type(module).__init__).parameters
    return {
        name: kept[name]
        for name in sorted(arguments)
        if name in kept and kept[name] != arguments[name].default and name != "inplace"
    }


def _source(kind: type) -> str:
    """The file in which somebody's own network is written; a library's classes are known by their names."""
    if _package(kind) in (*_LIBRARIES, "zsteer"):
        return ""
    try:
        return inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError, KeyError):  # written in a prompt or a frozen program
        return ""
