"""Load weights from whatever file they come in, without running what a pickle asks for; save them."""

import pickle
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zsteer.files import atomic_write, write_json

StateDict = dict[str, Tensor]


# What data-parallel wrappers and torch.compile put into each key.
_WRAPPERS = frozenset({"module", "_orig_mod"})

# What torch.load raises for files that are none of its own, or cut short.
_UNREADABLE = (
    SafetensorError,
    zipfile.BadZipFile,
    RuntimeError,
    OSError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    ArithmeticError,
    AssertionError,
    struct.error,
)


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
    state = _select(read(Path(path), where), set(network.state_dict()), key, where, role)
    check_same(state, network.state_dict(), where, f"{role}.network")
    network.load_state_dict(state)
    return network


def save_weights(
    network: nn.Module, path: str | Path, config: Mapping[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write the state dict as safetensors (floating tensors as `dtype`) and `config` beside it as JSON."""
    state = {
        # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
        name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).detach().cpu().clone().contiguous()
        for name, tensor in network.state_dict().items()
    }
    with atomic_write(path) as temporary:
        save_file(state, temporary)
    write_json(Path(path).with_suffix(".json"), config)


def read(path: Path, where: str) -> Mapping[Any, Any]:
    """What a checkpoint holds, on the CPU, with nothing in it run.

    Raises:
        FileNotFoundError, ValueError: no such file, unreadable, or refused; the message begins with `where`.
    """
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
    except _UNREADABLE as error:
        raise ValueError(f"{where}: not a readable checkpoint, or truncated ({_first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: holds a {type(content).__name__}, not a dict of tensors; save a state_dict()")
    return content


def _refusal(error: pickle.UnpicklingError) -> str:
    named = re.search(r"global:?\s+(?:global\s+)?([\w.]+)", str(error), re.IGNORECASE)
    if named is None:
        return f"not a readable checkpoint ({_first_line(error)})"
    return f"refused: the file would run code when loaded ({named[1]}); save a plain state_dict() instead"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _select(content: Mapping[Any, Any], expected: set[str], key: str | None, where: str, role: str) -> StateDict:
    """The tensors in a checkpoint's content that are the network's, under the network's own names.

    All names are read as paths. The network's lie behind one common prefix: none, the key of an entry, the name under
    which a larger module holds the network.
    """
    parts = {part for name in expected for part in name.split(".")}
    tensors = dict(_flatten(content, skipped=_WRAPPERS - parts))
    prefixes = Counter(
        name.removesuffix(wanted)
        for name in tensors
        for wanted in expected
        if name == wanted or name.endswith(f".{wanted}")
    )
    if key is not None:
        named = Counter({prefix: count for prefix, count in prefixes.items() if f".{key}." in f".{prefix}"})
        if not named and (prefixes or not any(name.startswith(f"{key}.") for name in tensors)):
            known = sorted({name.removeprefix("state_dict.").partition(".")[0] for name in tensors})
            raise ValueError(f"{where}: no entry {key!r}; {role}.checkpoint_key can be one of {_listed(known)}")
        prefixes = named
    if not prefixes:
        return {name.removeprefix(f"{key}."): tensor for name, tensor in tensors.items()}
    most = max(prefixes.values())
    fitting = sorted(prefix for prefix, count in prefixes.items() if count == most)
    if len(fitting) > 1 and "" not in fitting:
        names = [prefix.removesuffix(".").rpartition(".")[2] for prefix in fitting]
        raise ValueError(f"{where}: several parts fit; give {role}.checkpoint_key, one of {_listed(names)}")
    return {name.removeprefix(fitting[0]): tensor for name, tensor in tensors.items() if name.startswith(fitting[0])}


def _flatten(content: Mapping[Any, Any], skipped: Set[str], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts, by their paths joined with dots, without the parts that wrappers add."""
    for name, value in content.items():
        path = ".".join(part for part in f"{prefix}{name}".split(".") if part not in skipped)
        if isinstance(value, Tensor):
            yield path, value
        elif isinstance(value, Mapping):
            yield from _flatten(value, skipped, f"{path}.")


def _listed(names: Sequence[str]) -> str:
    return f"{list(names[:6])}{' and others' if len(names) > 6 else ''}"


def check_same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str, what: str) -> None:
    """Compare names and shapes with those of `what`, a config key or several.

    Raises:
        ValueError: some are missing, unexpected or misshapen.
    """
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
        raise ValueError(f"{where} does not fit {what}: {'; '.join(parts)}; check the settings of {what}")
