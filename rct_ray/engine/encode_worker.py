"""What runs on a worker of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rct_ray.engine.metrics import Metrics
from rct_ray.engine.shard import ShardResult, ShardTask, encode_shard
from rct_ray.engine.units import Unit


class EncodeWorker:
    """The actor's body: keeps its bases between calls (`shard._encoder`), and no state that can be lost."""

    def __init__(self) -> None:
        from threadpoolctl import threadpool_limits

        # One BLAS thread a worker: the last bit of a GEMM may depend on it.
        threadpool_limits(1)
        self._metrics = Metrics()

    def ready(self) -> str:
        """Answer once the actor runs."""
        return f"{os.uname().nodename}:{os.getpid()}"

    def encode(self, unit: Unit, task: ShardTask, attempt: int) -> list[ShardResult]:
        """Moments of a unit's shards; the weights are read here and never travel."""
        return list(self._encoded(unit, task, attempt))

    def _encoded(self, unit: Unit, task: ShardTask, attempt: int) -> Iterator[ShardResult]:
        for shard in unit.shards:
            result = encode_shard(shard, task, self.ready(), attempt=attempt)
            self._metrics.shard(result)
            yield result
