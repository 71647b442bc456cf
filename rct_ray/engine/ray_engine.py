"""The Ray engine: the same shard function on actors, of a local Ray or of a cluster.

Actors are never restarted by Ray: a call to an actor that is restarting fails at once and burns its retries
(ray-project/ray#44212), and which call killed it can't be told. A dead actor is replaced by a new one, whose
calls wait until it runs; what it had in flight is tried again, alone.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rct_ray.engine.descendants import descendants, end_survivors
from rct_ray.engine.errors import AddressError, EngineError
from rct_ray.engine.ray_session import check_reachable, import_ray, own_sigterm
from rct_ray.engine.shard import ShardResult, ShardTask, encode_shard
from rct_ray.engine.units import Unit, UnitDone, UnitFailed

if TYPE_CHECKING:
    from rct_ray.engine.resident import ResidentBlocks

# Calls in flight for each worker: one that runs and one that waits.
_AHEAD = 2
# Tries of a unit whose worker died.
_TRIES = 4
# Silence after which the run says that it waits for the cluster.
_SAY_AFTER_S = 10.0
# How long a run waits without a single worker; an autoscaler's new node takes minutes.
PATIENCE_S = 900.0


class EncodeWorker:
    """The actor's body: keeps its bases between calls (`shard._encoder`), and no state that can be lost."""

    def __init__(self) -> None:
        from threadpoolctl import threadpool_limits

        # One BLAS thread a worker: the last bit of a GEMM may depend on it.
        threadpool_limits(1)

    def ready(self) -> str:
        """Answer once the actor runs."""
        return f"{os.uname().nodename}:{os.getpid()}"

    def encode(self, unit: Unit, task: ShardTask, attempt: int) -> list[ShardResult]:
        """Moments of a unit's shards; the weights are read here and never travel."""
        return [encode_shard(shard, task, self.ready(), attempt=attempt) for shard in unit.shards]


@dataclass(slots=True, eq=False)
class _Slot:
    """One actor and the calls it has."""

    actor: Any
    starting: Any
    calls: dict[Any, Unit] = field(default_factory=dict)
    alone: bool = False
    apart: _Apart | None = None


@dataclass(slots=True, eq=False)
class _Apart:
    """A unit on its last try: its shards go one by one, so that the one that kills can be told."""

    unit: Unit
    results: list[ShardResult] = field(default_factory=list)

    def next(self) -> Unit:
        """The shard whose turn it is, as a unit."""
        return Unit(self.unit.index, (self.unit.shards[len(self.results)],))


class RayEngine:
    """Runs units on Ray actors, one CPU each.

    Parameters
    ----------
    workers : int
        Actors.
    address : str or None
        Of a running cluster; None joins the Ray of this process or of RAY_ADDRESS, else starts a local one.
    say : callable, optional
        Gets a line when the run waits for the cluster, or had to replace a worker.
    patience : float
        Seconds to wait without a single worker.
    """

    name = "ray"
    worker = EncodeWorker

    def __init__(
        self,
        workers: int,
        address: str | None = None,
        say: Callable[[str], None] | None = None,
        patience: float = PATIENCE_S,
    ) -> None:
        self.workers = workers
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._say = say or (lambda line: None)
        self._patience = patience
        self._slots: list[_Slot] = []
        self._started = False
        self._failed_starts = 0

    def __enter__(self) -> RayEngine:
        ray = import_ray()
        if not ray.is_initialized():
            check_reachable(self.address)
            try:
                with own_sigterm():
                    ray.init(**self._settings())
            except ConnectionError as error:
                raise AddressError(f"can't join Ray at {self.address}: {_first_line(error)}") from None
            self._started = True
        self._remote = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(self.worker)
        return self

    def __exit__(self, *_: object) -> None:
        ray = import_ray()
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []
        if self._started:
            processes = descendants() if self.address == "local" else []
            with own_sigterm():
                ray.shutdown()
            end_survivors(processes)

    def run(self, units: Sequence[Unit], task: ShardTask) -> Iterator[UnitDone | UnitFailed]:
        """Outcomes as they come, with a bounded number of calls in flight."""
        ray = import_ray()
        waiting, again, tries = deque(units), deque[Unit](), Counter[int]()
        self._slots += [self._new_slot() for _ in range(min(self.workers, len(units)) - len(self._slots))]
        idle_since, said = time.monotonic(), False
        while waiting or again or any(slot.calls for slot in self._slots):
            self._dispatch(waiting, again, tries, task)
            awaited = [
                reference for slot in self._slots for reference in (*slot.calls, slot.starting) if reference
            ]
            ready, _ = ray.wait(awaited, num_returns=1, timeout=_SAY_AFTER_S / 10)
            for reference in ready:
                yield from self._receive(ray, reference, again, tries, task)
            if ready or any(slot.starting is None for slot in self._slots):
                idle_since, said = time.monotonic(), False
            elif time.monotonic() - idle_since > (self._patience if said else _SAY_AFTER_S):
                self._complain(ray, final=said)
                said = True
        for slot in self._slots:
            # An idle actor holds a CPU, and with it a node that an autoscaler would take back.
            ray.kill(slot.actor)
        self._slots = []

    def blocks(self) -> ResidentBlocks:
        """Actors that hold blocks of rows which are passed over several times."""
        from rct_ray.engine.resident import ResidentBlocks

        return ResidentBlocks(self.workers, self.address)

    def _new_slot(self) -> _Slot:
        actor = self._remote.remote()
        return _Slot(actor, actor.ready.remote())

    def _dispatch(
        self, waiting: deque[Unit], again: deque[Unit], tries: Counter[int], task: ShardTask
    ) -> None:
        """Give work to the workers that run: first, alone on a worker, what killed one before."""
        for slot in sorted(self._slots, key=lambda slot: len(slot.calls)):
            while slot.starting is None and not slot.alone and len(slot.calls) < _AHEAD:
                if again and not slot.calls:
                    unit, slot.alone = again.popleft(), True
                    if tries[unit.index] == _TRIES - 1:
                        slot.apart = _Apart(unit)
                        unit = slot.apart.next()
                elif waiting and not (again and slot.calls):
                    unit = waiting.popleft()
                else:
                    break
                slot.calls[slot.actor.encode.remote(unit, task, tries[unit.index])] = unit

    def _receive(
        self, ray: Any, reference: Any, again: deque[Unit], tries: Counter[int], task: ShardTask
    ) -> Iterator[UnitDone | UnitFailed]:
        slot = next(
            (slot for slot in self._slots if reference is slot.starting or reference in slot.calls), None
        )
        if slot is None:
            return
        unit = slot.calls.pop(reference, None)
        try:
            outcome = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            # What the shard function raised, as it would come from any other engine.
            slot.alone, slot.apart = False, None
            if unit is None:
                raise EngineError(f"a worker can't start: {_last_line(error)}") from error
            yield UnitFailed(unit, error.cause if isinstance(error.cause, Exception) else error)
        except ray.exceptions.RayError as error:
            if unit is None:
                self._bear_failed_start(error)
            lost = [unit, *slot.calls.values()] if unit else list(slot.calls.values())
            self._slots[self._slots.index(slot)] = self._new_slot()
            self._say(f"a worker died and is replaced: {_first_line(error)}")
            yield from _try_again(lost, again, tries, error, slot.apart)
        else:
            if unit is None:
                slot.starting, self._failed_starts = None, 0
            elif slot.apart is None:
                slot.alone = False
                yield UnitDone(unit, outcome)
            else:
                yield from self._next_apart(slot, slot.apart, outcome, tries, task)

    def _next_apart(
        self, slot: _Slot, apart: _Apart, outcome: list[ShardResult], tries: Counter[int], task: ShardTask
    ) -> Iterator[UnitDone]:
        apart.results += outcome
        if len(apart.results) == len(apart.unit.shards):
            slot.alone, slot.apart = False, None
            yield UnitDone(apart.unit, apart.results)
        else:
            shard = apart.next()
            slot.calls[slot.actor.encode.remote(shard, task, tries[shard.index])] = shard

    def _bear_failed_start(self, error: Any) -> None:
        """Give up where no worker ever comes up; one lost with its node on the way is no such case."""
        self._failed_starts += 1
        if getattr(error, "actor_init_failed", False):
            # An exception, such as of an import, which the next one would meet as well.
            raise EngineError(f"a worker can't start: {_last_line(error)}") from error
        if self._failed_starts >= _TRIES * self.workers:
            raise EngineError(
                f"workers can't start, {self._failed_starts} died in a row: {_last_line(error)}"
            ) from error

    def _complain(self, ray: Any, *, final: bool) -> None:
        total = ray.cluster_resources().get("CPU", 0)
        free = ray.available_resources().get("CPU", 0)
        state = f"a worker needs 1 CPU; the cluster has {total:g}, {free:g} of them free"
        if final:
            raise EngineError(f"no worker could be started in {self._patience:g} s: {state}")
        self._say(f"waiting for the cluster: {state}")

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


def _try_again(
    lost: Sequence[Unit], again: deque[Unit], tries: Counter[int], error: Exception, apart: _Apart | None
) -> Iterator[UnitFailed]:
    for unit in lost:
        # A node taken back by its provider says nothing against what ran on it.
        tries[unit.index] += not getattr(error, "preempted", False)
        if tries[unit.index] < _TRIES:
            again.append(apart.unit if apart else unit)
        else:
            yield UnitFailed(
                unit, EngineError(f"its worker died at each of {_TRIES} tries: {_first_line(error)}")
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
