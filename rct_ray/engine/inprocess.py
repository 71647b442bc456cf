"""The in-process engine: threads, which NumPy and the file system let run side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from rct_ray.engine.plan import Shard
from rct_ray.engine.shard import ShardResult, ShardTask, encode_shard

# Shards in flight for each worker: one that runs and one that waits.
_AHEAD = 2


class InProcessEngine:
    """Runs shards on threads of this process.

    Parameters
    ----------
    workers : int
        Threads; each holds one block of weights.
    """

    name = "inprocess"

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="shard")

    def __enter__(self) -> InProcessEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, shards: Sequence[Shard], task: ShardTask) -> Iterator[ShardResult]:
        """Results in shard order, with a bounded number of shards in flight."""
        waiting = iter(shards)
        flight: deque[Future[ShardResult]] = deque()
        while True:
            for shard in islice(waiting, self.workers * _AHEAD - len(flight)):
                flight.append(self._pool.submit(self._encode, shard, task))
            if not flight:
                return
            yield flight.popleft().result()

    def _encode(self, shard: Shard, task: ShardTask) -> ShardResult:
        return encode_shard(shard, task, threading.current_thread().name, self._stop.is_set)
