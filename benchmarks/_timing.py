"""Timing on a machine that is not ours alone: minima, and what is compared takes turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def fastest(works: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Least seconds of each piece of work over some rounds, in each of which all take their turn."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work))
    return {name: min(times) for name, times in taken.items()}
