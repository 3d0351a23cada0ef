"""Settings and their ranges: each refusal is one line with the value, the constraint and the config key."""

import sys
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

NETWORKS = ("generator", "classifier", "judge")  # the config groups of trained networks
JUDGES = ("judge", "second_judge")  # those of networks that take no part in steering; only a comparison has the second
SOURCES = ("gradient", "boundary", "sefa", "ganspace", "axis", "random")  # of directions, beside a file
LIMITS = {"drawn": "drawn edit", "optimum": "optimum by the judge"}  # of methods, and what tables call them
MAX_SEED = 2**32 - 1  # of NumPy's generators, which training seeds too


def whole_number(value: Any, key: str, least: int, most: int | None = None) -> int:
    """Return `value`, NumPy's too, if it is an integer in [least, most].

    Raises:
        ValueError: it is not.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or int(value) < least or (most is not None and int(value) > most):
        limits = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{key}={value} must be a whole number, {limits}")
    return int(value)


def real_number(value: Any, key: str, minimum: float | None = None, above: float | None = None) -> int | float:
    """Return `value` if it is a finite number that is at least `minimum` or greater than `above`.

    Raises:
        ValueError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not number or (minimum is not None and value < minimum) or (above is not None and value <= above):
        bound = "" if minimum is None else f", {minimum:g} or more"
        bound += "" if above is None else f", greater than {above:g}"
        raise ValueError(f"{key}={value} must be a finite number{bound}")
    return value


def flag(value: Any, key: str) -> bool:
    """Return `value` if it is true or false, and no word that Python would take for true.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value} must be true or false")
    return value


def choice(value: Any, key: str, choices: Sequence[str]) -> str:
    """Return `value` if it is one of a few words.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{key}={value} must be one of {', '.join(choices)}")
    return value


def as_typed(key: str, mapping: Mapping[Any, Any]) -> str:
    """A mapping as it is given on the command line."""
    return f"{key}={{{', '.join(f'{name}: {str(value).lower()}' for name, value in mapping.items())}}}"


def existing_file(value: Any, key: str) -> Path:
    """Return `value` as a path if it is that of a file.

    Raises:
        FileNotFoundError: it is not.
    """
    path = Path(str(value))
    if not path.is_file():
        raise FileNotFoundError(f"{key}={value}: no such file")
    return path
