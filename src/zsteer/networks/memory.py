"""Work on many rows, in parts where all of them do not fit into memory at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from zsteer.status import describe, out_of_memory

Result = TypeVar("Result")


@contextmanager
def memory_for(rows: int) -> Iterator[None]:
    """Go on behind the block where it runs out of memory: no error holds then what has taken it.

    Raises:
        ValueError: it did so for one row.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if rows == 1:
            raise ValueError(
                f"one image alone does not fit into memory ({describe(error)}); use smaller networks, or a device with "
                "more memory"
            ) from error


def in_parts(compute: Callable[[slice], Result], rows: int, join: Callable[[list[Result]], Result]) -> Result:
    """What `compute` makes of all rows; where that runs out of memory, of each half of them joined, and so on.

    Raises:
        ValueError: one row alone does not fit.
    """

    def of(first: int, last: int) -> Result:
        with memory_for(last - first):
            return compute(slice(first, last))
        middle = (first + last) // 2
        return join([of(first, middle), of(middle, last)])

    return of(0, rows)
