"""The Ray engine: the same shard function on actors, of a local Ray or of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from rct_ray.engine.plan import Shard
from rct_ray.engine.shard import ShardResult, ShardTask, encode_shard

# A call costs a millisecond or two, so small shards travel together.
_GROUP_BYTES = 16 << 20
_GROUP_SHARDS = 64
# Calls in flight for each worker: one that runs and one that waits.
_AHEAD = 2
# Groups that may be finished ahead of one that is late: bounds the driver's memory.
_WINDOW = 8
_RESTARTS = 4


class EngineError(RuntimeError):
    """The engine itself failed, after its retries; says at which tensor."""


class EncodeWorker:
    """The actor's body: keeps its bases between calls (`shard._encoder`), and no state that can be lost."""

    def __init__(self) -> None:
        from threadpoolctl import threadpool_limits

        # One BLAS thread a worker: the last bit of a GEMM may depend on it.
        threadpool_limits(1)

    def encode(self, shards: Sequence[Shard], task: ShardTask) -> list[ShardResult]:
        """Moments of some shards; the weights are read here and never travel."""
        worker = f"{os.uname().nodename}:{os.getpid()}"
        return [encode_shard(shard, task, worker) for shard in shards]


class RayEngine:
    """Runs shards on Ray actors, one CPU each.

    Parameters
    ----------
    workers : int
        Actors.
    address : str or None
        Of a running cluster; None starts a local Ray, unless RAY_ADDRESS names one.
    """

    name = "ray"

    def __init__(self, workers: int, address: str | None = None) -> None:
        self.workers = workers
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._actors: list[Any] = []
        self._started = False

    def __enter__(self) -> RayEngine:
        ray = _import_ray()
        if not ray.is_initialized():
            ray.init(**self._settings())
            self._started = True
        remote = ray.remote(num_cpus=1, max_restarts=_RESTARTS, max_task_retries=_RESTARTS)(EncodeWorker)
        self._actors = [remote.remote() for _ in range(self.workers)]
        return self

    def __exit__(self, *_: object) -> None:
        ray = _import_ray()
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._started:
            ray.shutdown()

    def run(self, shards: Sequence[Shard], task: ShardTask) -> Iterator[ShardResult]:
        """Results in shard order, with a bounded number of calls in flight."""
        ray = _import_ray()
        groups = _grouped(shards)
        flight: dict[Any, tuple[int, int]] = {}
        finished: dict[int, list[ShardResult]] = {}
        busy = [0] * len(self._actors)
        submitted = yielded = 0
        while yielded < len(groups):
            while submitted < min(len(groups), yielded + _WINDOW * self.workers) and min(busy) < _AHEAD:
                actor = busy.index(min(busy))
                busy[actor] += 1
                flight[self._actors[actor].encode.remote(groups[submitted], task)] = (submitted, actor)
                submitted += 1
            ready, _ = ray.wait(list(flight), num_returns=1)
            group, actor = flight.pop(ready[0])
            busy[actor] -= 1
            finished[group] = _fetch(ray, ready[0], groups[group])
            while yielded in finished:
                yield from finished.pop(yielded)
                yielded += 1

    def _settings(self) -> dict[str, Any]:
        if self.address != "local":
            return {"address": self.address, "log_to_driver": False, "logging_level": "ERROR"}
        return {
            "address": "local",
            "num_cpus": self.workers,
            "num_gpus": 0,
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": "ERROR",
            "object_store_memory": 128 << 20,
        }


def _import_ray() -> Any:
    # Both are read when Ray is imported. Neither may surprise a user who runs one command on a laptop.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    return ray


def _grouped(shards: Sequence[Shard]) -> list[list[Shard]]:
    groups: list[list[Shard]] = []
    size = 0
    for shard in shards:
        if not groups or len(groups[-1]) == _GROUP_SHARDS or size + shard.nbytes > _GROUP_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(shard)
        size += shard.nbytes
    return groups


def _fetch(ray: Any, reference: Any, group: Sequence[Shard]) -> list[ShardResult]:
    try:
        results: list[ShardResult] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # What the shard function raised, as it would come from any other engine.
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        names = sorted({shard.entry.name for shard in group})
        raise EngineError(
            f"workers died at every try of {', '.join(names[:3])}: {_first_line(error)}"
        ) from error
    return results


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
