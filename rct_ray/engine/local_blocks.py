"""Blocks of rows that are made anew for every pass: the in-process stand-in for `ResidentBlocks`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Blocks for each worker that may be made ahead of the one that is waited for.
_AHEAD = 2


class LocalBlocks:
    """Blocks by the callables that make them; a pass holds a few at a time.

    Parameters
    ----------
    pool : Executor
        Makes blocks and works on them.
    workers : int
        Of the pool.
    """

    def __init__(self, pool: Executor, workers: int) -> None:
        self._pool = pool
        self._ahead = workers * _AHEAD
        self._sources: list[Callable[[], NDArray[Any]]] = []

    def load(
        self, sources: Iterable[Callable[[], NDArray[Any]]], describe: Callable[[NDArray[Any]], Any]
    ) -> list[Any]:
        """Replace all blocks by others, and ask one thing of each."""
        self._sources = list(sources)
        return [answer for _, answer in self.map(describe)]

    def map(self, work: Callable[..., Any], *args: Any) -> Iterator[tuple[int, Any]]:
        """`work(block, *args)` of every block, in order of the blocks."""
        waiting = iter(self._sources)
        flight: deque[Future[Any]] = deque()
        index = 0
        while True:
            for source in islice(waiting, self._ahead - len(flight)):
                flight.append(self._pool.submit(_applied, source, work, args))
            if not flight:
                return
            yield index, flight.popleft().result()
            index += 1

    def close(self) -> None:
        """Forget the blocks; the pool is its owner's."""
        self._sources = []


def _applied(source: Callable[[], NDArray[Any]], work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with np.errstate(invalid="ignore", over="ignore"):
        return work(source(), *args)
