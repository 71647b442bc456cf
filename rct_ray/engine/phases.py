"""Where the driver's time goes: seconds by phase, each moment counted once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Phases:
    """A stopwatch of several phases; one inside another stops that one.

    Attributes
    ----------
    seconds : dict of str to float
        Spent in each phase so far, those that are still open up to their last change.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count the block's time as a phase's."""
        self._count()
        self._open.append(phase)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def each(self, phase: str, items: Iterable[T]) -> Iterator[T]:
        """Items as they come; what they take to come is the phase's, what is done with them is not."""
        coming = iter(items)
        while True:
            with self.during(phase):
                try:
                    item = next(coming)
                except StopIteration:
                    return
            yield item

    def rounded(self) -> dict[str, float]:
        """Seconds by phase, to the microsecond."""
        return {phase: round(seconds, 6) for phase, seconds in self.seconds.items()}

    def _count(self) -> None:
        now = time.perf_counter()
        if self._open:
            phase = self._open[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now
