"""The Ray engine: the same shard function on actors, of a local Ray or of a cluster.

Actors are never restarted by Ray: a call to an actor that is restarting fails at once and burns its retries
(ray-project/ray#44212), and which call killed it can't be told. A dead actor is replaced by a new one, whose
calls wait until it runs; what it had in flight is tried again, alone.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rct_ray.engine.descendants import descendants, end_survivors
from rct_ray.engine.encode_worker import EncodeWorker
from rct_ray.engine.errors import AddressError, EngineError
from rct_ray.engine.footprint import worker_bytes
from rct_ray.engine.metrics import Metrics
from rct_ray.engine.notices import RETRY, Notice, unheard
from rct_ray.engine.ray_session import check_reachable, import_ray, join_ray, own_sigterm
from rct_ray.engine.ray_slots import Apart, Slot
from rct_ray.engine.shard import ShardResult, ShardTask
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


class RayEngine:
    """Runs units on Ray actors, which ask for one CPU and the memory that the largest unit needs.

    They are asked for at once, so that an autoscaler adds nodes while units wait, and let go one by one as soon
    as nothing waits any more, so that it can take nodes back; no result is left where it was made.

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
    heard : callable, optional
        Hears of units that are tried again.
    """

    name = "ray"
    worker = EncodeWorker

    def __init__(
        self,
        workers: int,
        address: str | None = None,
        say: Callable[[str], None] | None = None,
        patience: float = PATIENCE_S,
        heard: Notice | None = None,
    ) -> None:
        self.workers = workers
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._say = say or (lambda line: None)
        self._patience = patience
        self._heard = heard or unheard
        self._metrics: Metrics | None = None
        self._slots: list[Slot] = []
        self._memory: int | None = None
        self._idle_since, self._said = 0.0, False
        self._started = False
        self._failed_starts = 0

    def __enter__(self) -> RayEngine:
        ray = import_ray()
        if not ray.is_initialized():
            check_reachable(self.address)
            others = descendants()
            try:
                with own_sigterm():
                    join_ray(self.address, self.workers)
            except ConnectionError as error:
                raise AddressError(f"can't join Ray at {self.address}: {_first_line(error)}") from None
            except BaseException:
                # Interrupted half way, Ray leaves what it has started to find out by itself, which may take long.
                end_survivors([process for process in descendants() if process not in others])
                raise
            self._started = True
        self._remote = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(self.worker)
        self._metrics = Metrics()
        return self

    def __exit__(self, *_: object) -> None:
        ray = import_ray()
        left = [reference for slot in self._slots for reference in slot.calls]
        self._release(ray, self._slots)
        for reference in ray.wait(left, num_returns=len(left), timeout=0)[0] if left else ():
            # A failure that nobody takes is printed by Ray, with a traceback.
            with suppress(ray.exceptions.RayError):
                ray.get(reference)
        if self._started:
            processes = descendants() if self.address == "local" else []
            with own_sigterm():
                ray.shutdown()
            end_survivors(processes)

    def run(self, units: Sequence[Unit], task: ShardTask) -> Iterator[UnitDone | UnitFailed]:
        """Outcomes as they come, with a bounded number of calls in flight."""
        ray = import_ray()
        waiting, again, tries = deque(units), deque[Unit](), Counter[tuple[int, int]]()
        # A Ray of our own has no scheduler to inform: all its workers are to run, whatever it takes memory for.
        own = self._started and self.address == "local"
        self._memory = None if own else worker_bytes(units, task)
        self._slots += [self._new_slot() for _ in range(min(self.workers, len(units)) - len(self._slots))]
        self._idle_since, self._said = time.monotonic(), False
        while waiting or again or any(slot.calls for slot in self._slots):
            self._dispatch(waiting, again, tries, task)
            if not (waiting or again):
                self._release(ray, [slot for slot in self._slots if not slot.calls])
            yield from self._arrivals(ray, again, tries, task)
        self._release(ray, self._slots)

    def notice(self, event: str, values: Mapping[str, Any]) -> None:
        """Count what the run tells."""
        if self._metrics is not None:
            self._metrics.notice(event, values)

    def blocks(self) -> ResidentBlocks:
        """Actors that hold blocks of rows which are passed over several times."""
        from rct_ray.engine.resident import ResidentBlocks

        return ResidentBlocks(self.workers, self.address)

    def _tell(self, event: str, values: Mapping[str, Any]) -> None:
        self.notice(event, values)
        self._heard(event, values)

    def _new_slot(self) -> Slot:
        actor = self._remote.options(memory=self._memory).remote()
        return Slot(actor, actor.ready.remote())

    def _release(self, ray: Any, slots: Sequence[Slot]) -> None:
        """Let go of workers: an idle one holds a CPU, and with it a node that an autoscaler would take back."""
        for slot in slots:
            ray.kill(slot.actor)
        self._slots = [slot for slot in self._slots if slot not in slots]

    def _arrivals(
        self, ray: Any, again: deque[Unit], tries: Counter[tuple[int, int]], task: ShardTask
    ) -> list[UnitDone | UnitFailed]:
        """What came in, after a while at most.

        A list: while whoever takes it is busy, no reference may keep a result where it was made.
        """
        awaited = [
            reference for slot in self._slots for reference in (*slot.calls, slot.starting) if reference
        ]
        ready, _ = ray.wait(awaited, num_returns=1, timeout=_SAY_AFTER_S / 10)
        outcomes = [
            outcome for reference in ready for outcome in self._receive(ray, reference, again, tries, task)
        ]
        if ready or any(slot.starting is None for slot in self._slots):
            self._idle_since, self._said = time.monotonic(), False
        elif time.monotonic() - self._idle_since > (self._patience if self._said else _SAY_AFTER_S):
            self._complain(ray, final=self._said)
            self._said = True
        return outcomes

    def _dispatch(
        self, waiting: deque[Unit], again: deque[Unit], tries: Counter[tuple[int, int]], task: ShardTask
    ) -> None:
        """Give work to the workers that run: first, alone on a worker, what killed one before."""
        for slot in sorted(self._slots, key=lambda slot: len(slot.calls)):
            while slot.starting is None and not slot.alone and len(slot.calls) < _AHEAD:
                if again and not slot.calls:
                    unit, slot.alone = again.popleft(), True
                    if tries[unit.key] == _TRIES - 1:
                        slot.apart = Apart(unit)
                        unit = slot.apart.next()
                elif waiting and not (again and slot.calls):
                    unit = waiting.popleft()
                else:
                    break
                slot.calls[slot.actor.encode.remote(unit, task, tries[unit.key])] = unit

    def _receive(
        self, ray: Any, reference: Any, again: deque[Unit], tries: Counter[tuple[int, int]], task: ShardTask
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
            yield from self._try_again(lost, again, tries, error, slot.apart)
        else:
            if unit is None:
                slot.starting, self._failed_starts = None, 0
            elif slot.apart is None:
                slot.alone = False
                yield UnitDone(unit, outcome)
            else:
                yield from self._next_apart(slot, slot.apart, outcome, tries, task)

    def _next_apart(
        self,
        slot: Slot,
        apart: Apart,
        outcome: list[ShardResult],
        tries: Counter[tuple[int, int]],
        task: ShardTask,
    ) -> Iterator[UnitDone]:
        apart.results += outcome
        if len(apart.results) == len(apart.unit.shards):
            slot.alone, slot.apart = False, None
            yield UnitDone(apart.unit, apart.results)
        else:
            shard = apart.next()
            slot.calls[slot.actor.encode.remote(shard, task, tries[shard.key])] = shard

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
        total, free = ray.cluster_resources(), ray.available_resources()
        cpus = free.get("CPU", 0)
        state = f"a worker needs 1 CPU; the cluster has {total.get('CPU', 0):g}, {cpus:g} of them free"
        if cpus >= 1 and self._memory is not None:
            needed, left = self._memory / (1 << 30), free.get("memory", 0) / (1 << 30)
            state += f"; and {needed:.2f} GiB of memory, of which {left:.2f} are free in all nodes together"
        if final:
            raise EngineError(f"no worker could be started in {self._patience:g} s: {state}")
        self._say(f"waiting for the cluster: {state}")

    def _try_again(
        self,
        lost: Sequence[Unit],
        again: deque[Unit],
        tries: Counter[tuple[int, int]],
        error: Exception,
        apart: Apart | None,
    ) -> Iterator[UnitFailed]:
        for unit in lost:
            # A node taken back by its provider says nothing against what ran on it.
            tries[unit.key] += not getattr(error, "preempted", False)
            if tries[unit.key] < _TRIES:
                again.append(apart.unit if apart else unit)
                about = {"unit": unit.index, "checkpoint": unit.checkpoint, "attempt": tries[unit.key]}
                self._tell(RETRY, {**about, "error": _first_line(error)})
            else:
                yield UnitFailed(
                    unit, EngineError(f"its worker died at each of {_TRIES} tries: {_first_line(error)}")
                )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
