"""Fair clocks for the benchmarks: contenders take turns in one process, and medians are compared."""

import statistics
import time
from collections.abc import Callable

ROUNDS = 9


def alternate(*contenders: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each, taken in turns so that a busy machine slows all alike; the first round warms up."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds + 1):
        for times, contender in zip(seconds, contenders, strict=True):
            started = time.perf_counter()
            contender()
            times.append(time.perf_counter() - started)
    return [statistics.median(times[1:]) for times in seconds]
