"""Load weights from whatever file they come in, without running what a pickle asks for; save them."""

import pickle
import re
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zsteer.files import atomic_write, write_json

StateDict = dict[str, Tensor]


# What data-parallel wrappers and torch.compile put into each key, and the counter that an averaging one has beside.
_WRAPPERS = frozenset({"module", "_orig_mod"})
_COUNTERS = frozenset({"n_averaged"})

# What people keep beside weights that is data: settings, paths, times, figures, states of random numbers.
_DATA = re.compile(
    r"""argparse\.Namespace | pathlib\.(_local\.)?\w*Path | types\.SimpleNamespace | uuid\.UUID | decimal\.Decimal
    | builtins\.(bool|dict|float|frozenset|int|list|range|slice|str|tuple) | collections\.defaultdict | datetime\.\w+
    | numpy\.(dtype|ndarray|dtypes\.\w+|_?core\.multiarray\.(scalar|_reconstruct)|random\.[\w.]+)
    | omegaconf\.(dictconfig|listconfig|base|nodes)\.\w+ | typing\.\w+ | torch\.torch_version\.TorchVersion""",
    re.VERBOSE,
)

MAX_DEPTH, MAX_ENTRIES = 30, 100_000  # of what is searched for weights


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
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = _select(read(Path(path), where, ignored=_DATA), set(before), key, where, role)
    try:
        network.load_state_dict(state)  # torch knows which weights of earlier layers' forms it can take
    except RuntimeError as error:
        network.load_state_dict(before)
        attributes = role.partition(".")[0] in ("classifier", "judge")
        check_same(state, before, where, f"{role}.network{f' with its {role}.attributes' if attributes else ''}")
        raise ValueError(f"{where} does not fit {role}.network: {' '.join(str(error).split())}") from error
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


def read(path: Path, where: str, ignored: re.Pattern[str] | None = None) -> Mapping[Any, Any]:
    """What a checkpoint holds, on the CPU, with nothing in it run.

    Args:
        ignored: the full names of classes whose objects are left out, instead of refusing the file.

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
        # A zip since torch 1.6; the format before does not say what is in it. Never mmap=True, which that one cannot.
        with torch.serialization.safe_globals(_left_out(path, ignored)), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where}: {_refusal(error)}") from error
    except Exception as error:  # whatever a damaged file makes of torch
        raise ValueError(f"{where}: not a readable checkpoint, or truncated ({_first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: holds a {type(content).__name__}, not a dict of tensors; save a state_dict()")
    return content


class _LeftOut:
    """What stands for an object of a library's in a checkpoint: nothing of the library's is called."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _left_out(path: Path, ignored: re.Pattern[str] | None) -> list[Any]:
    """What torch shall make of the objects of some classes in a file; in torch's words, its safe globals."""
    if ignored is None or not zipfile.is_zipfile(path):
        return []
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    # Torch fills dicts, for which it needs one of its own.
    return [(_a_dict if name.endswith("dict") else _LeftOut, name) for name in names if ignored.fullmatch(name)]


def _a_dict(*_: object) -> OrderedDict[Any, Any]:
    return OrderedDict()


def _refusal(error: pickle.UnpicklingError) -> str:
    if "Unsupported operand" in str(error):
        return "not a readable checkpoint: damaged, or saved with a pickle_protocol other than torch's own, 2"
    named = re.search(r"global:?\s+(?:global\s+)?([\w.]+)", str(error), re.IGNORECASE)
    if named is None:
        return f"not a readable checkpoint ({_first_line(error)})"
    if any(_DATA.fullmatch(name) for name in (named[1], f"builtins.{named[1]}")):
        return f"refused: it holds {named[1]}, not only tensors, numbers and words; save a plain state_dict() instead"
    return f"refused: the file would run code when loaded ({named[1]}); save a plain state_dict() instead"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _select(content: Mapping[Any, Any], expected: set[str], key: str | None, where: str, role: str) -> StateDict:
    """The tensors in a checkpoint's content that are the network's, under the network's own names.

    All names are read as paths. The network's lie behind one common prefix: none, the key of an entry, the name under
    which a larger module holds the network.
    """
    parts = {part for name in expected for part in name.split(".")}
    counters = _COUNTERS - parts
    tensors = {
        name: leaf
        for name, leaf in _flatten(content, _WRAPPERS - parts, where).items()
        if isinstance(leaf, Tensor) and name.rpartition(".")[2] not in counters
    }
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
    exact = [prefix for prefix in fitting if prefix in ("", f"{key}.")]
    if len(fitting) > 1 and not exact:
        names = [_key_of(prefix, fitting) for prefix in fitting]
        raise ValueError(f"{where}: several parts fit; give {role}.checkpoint_key, one of {_listed(names)}")
    chosen = (exact or fitting)[0]
    return {name.removeprefix(chosen): tensor for name, tensor in tensors.items() if name.startswith(chosen)}


def _flatten(content: Mapping[Any, Any], skipped: Set[str], where: str) -> dict[str, Any]:
    """All that nested dicts hold, by their paths joined with dots, without the parts that wrappers add."""
    leaves: dict[str, Any] = {}
    pending, entries = [("", content, 0)], 0
    while pending:
        prefix, branch, depth = pending.pop()
        entries += 1 + len(branch)
        if depth > MAX_DEPTH or entries > MAX_ENTRIES:
            raise ValueError(
                f"{where}: holds more than {MAX_ENTRIES:,} entries, or dicts more than {MAX_DEPTH} deep or in "
                "themselves; save a plain state_dict()"
            )
        for name, value in branch.items():
            path = ".".join(part for part in f"{prefix}{name}".split(".") if part not in skipped)
            if isinstance(value, Mapping):
                pending.append((f"{path}.", value, depth + 1))
            else:
                leaves[path] = value
    return leaves


def _key_of(prefix: str, prefixes: Sequence[str]) -> str:
    """The shortest word by which a prefix is told from the others: one of its parts, the last if possible, or all."""
    whole = prefix.removesuffix(".")
    others = [f".{other}" for other in prefixes if other != prefix]
    parts = reversed(whole.split("."))
    return next((part for part in parts if not any(f".{part}." in other for other in others)), whole)


def _listed(names: Sequence[str]) -> str:
    return f"{list(names[:6])}{' and others' if len(names) > 6 else ''}"


def form_of(tensor: Tensor) -> str:
    """A tensor's shape, and what else keeps it from being copied into another."""
    kinds = (("meta", tensor.is_meta), ("quantized", tensor.is_quantized), ("sparse", tensor.layout != torch.strided))
    return " ".join([str(list(tensor.shape)), *(kind for kind, found in kinds if found)])


def check_same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str, what: str) -> None:
    """Compare names and shapes with those of `what`, a config key or several.

    Raises:
        ValueError: some are missing, unexpected or misshapen.
    """
    missing = sorted(set(expected) - set(state))
    unexpected = sorted(set(state) - set(expected))
    misshapen = [
        f"{name} {form_of(state[name])} for {form_of(tensor)}"
        for name, tensor in expected.items()
        if name in state and form_of(state[name]) != form_of(tensor)
    ]
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if parts:
        raise ValueError(f"{where} does not fit {what}: {'; '.join(parts)}; check the settings of {what}")
