"""The in-process engine: threads, which NumPy and the file system let run side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from rct_ray.engine.local_blocks import LocalBlocks
from rct_ray.engine.shard import ShardTask, encode_shard
from rct_ray.engine.units import Unit, UnitDone, UnitFailed

# Units in flight for each worker: one that runs and one that waits.
_AHEAD = 2


class InProcessEngine:
    """Runs units on threads of this process.

    Parameters
    ----------
    workers : int
        Threads; each holds one block of weights.
    """

    name = "inprocess"

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def __enter__(self) -> InProcessEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, units: Sequence[Unit], task: ShardTask) -> Iterator[UnitDone | UnitFailed]:
        """Outcomes as they come, with a bounded number of units in flight."""
        waiting = iter(units)
        flight: set[Future[UnitDone | UnitFailed]] = set()
        while True:
            for unit in islice(waiting, self.workers * _AHEAD - len(flight)):
                flight.add(self._pool.submit(self._encode, unit, task))
            if not flight:
                return
            finished, flight = wait(flight, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()

    def notice(self, event: str, values: Mapping[str, Any]) -> None:
        """Hear what the run tells; nothing here counts it."""

    def blocks(self) -> LocalBlocks:
        """A place for blocks of rows that are passed over several times."""
        return LocalBlocks(self._pool, self.workers)

    def _encode(self, unit: Unit, task: ShardTask) -> UnitDone | UnitFailed:
        worker = threading.current_thread().name
        try:
            results = [encode_shard(shard, task, worker, self._stop.is_set) for shard in unit.shards]
        except Exception as error:
            return UnitFailed(unit, error)
        return UnitDone(unit, results)
