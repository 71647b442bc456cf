"""Blocks of rows that live on Ray actors, and one loop that takes a function to them.

No block is state that can be lost: where it came from (a callable, an object reference, or the caller's own
array) stays known here, and an actor that takes the place of a dead one is handed its blocks again as it says
that it misses them.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from rct_ray.engine.block_holder import Block, BlockHolder, MissingBlock, Source
from rct_ray.engine.errors import EngineError
from rct_ray.engine.ray_session import import_ray, own_sigterm, settings

# Calls in flight for each actor: one that runs and one that waits.
_AHEAD = 2
# Blocks for each actor that may be finished ahead of one that is late.
_WINDOW = 4
# Tries of a block whose worker died.
_TRIES = 4
# Silence after which a shortage is said aloud, and after which it is an error.
_SAY_AFTER = 10.0
_GIVE_UP_AFTER = 600.0
_STORE_BYTES = 256 << 20
# Arguments from here on are put into the object store once a pass, not sent with every call.
_SHARED_BYTES = 64 << 10


class _LostCallError(Exception):
    """The actor of a call, or what it answered, is no more."""


class ResidentBlocks:
    """Blocks of rows on Ray actors of one CPU each; block i on actor i modulo their number.

    Parameters
    ----------
    workers : int, optional
        Actors, at most; by default one for each free CPU.
    address : str, optional
        Of a running cluster. Otherwise Ray is joined if this process uses it already, or RAY_ADDRESS names
        one, else a local Ray is started, and shut down on `close`.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        ray = import_ray()
        self._started = not ray.is_initialized()
        if self._started:
            with own_sigterm():
                joined = address or os.environ.get("RAY_ADDRESS") or "local"
                ray.init(**settings(joined, workers or os.cpu_count() or 1, _STORE_BYTES))
        self.workers = workers or max(1, int(ray.available_resources().get("CPU", 1)))
        self._body = ray.remote(num_cpus=1)(BlockHolder)
        self._actors: dict[int, Any] = {}
        self._ready: dict[int, Any] = {}
        self._sources: list[Source] = []

    def __len__(self) -> int:
        return len(self._sources)

    def load(self, blocks: Iterable[Source], describe: Callable[[Block], Any]) -> list[Any]:
        """Replace all blocks by others, and ask one thing of each as it arrives.

        Parameters
        ----------
        blocks : iterable
            Arrays of shape (n_i, K); object references of such; or callables that make one inside the worker.
        describe : callable

        Returns
        -------
        list
            `describe(block)` of every block, in order.
        """
        self.forget()

        def arriving() -> Iterator[int]:
            for index, block in enumerate(blocks):
                self._sources.append(block)
                yield index

        return [answer for _, answer in _Pass(self, describe, ()).run(arriving(), supply=True)]

    def map(self, work: Callable[..., Any], *args: Any) -> Iterator[tuple[int, Any]]:
        """`work(block, *args)` of every block where it is, in order of the blocks.

        Parameters
        ----------
        work : callable
            A function of a module that workers can import.
        *args
            Sent along; large arrays travel to a node once.
        """
        ray = import_ray()
        shared = tuple(
            ray.put(value) if getattr(value, "nbytes", 0) > _SHARED_BYTES else value for value in args
        )
        return _Pass(self, work, shared).run(iter(range(len(self))), supply=False)

    def forget(self) -> None:
        """Drop all blocks; the actors stay. Calls to an actor are done in order, so what is on its way goes too."""
        for actor in self._actors.values():
            actor.forget.remote()
        self._sources = []

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        ray = import_ray()
        if ray.is_initialized():
            for actor in self._actors.values():
                ray.kill(actor)
            if self._started:
                ray.shutdown()
        self._actors, self._ready, self._sources, self._started = {}, {}, [], False

    def submit(self, index: int, work: Callable[..., Any], args: tuple[Any, ...], *, supply: bool) -> Any:
        """Send a call to the actor of a block, with what the block is made of or without; its reference."""
        slot = index % self.workers
        if slot not in self._actors:
            self._actors[slot] = self._body.remote()
            self._ready[slot] = self._actors[slot].__ray_ready__.remote()
        source = self._sources[index] if supply else None
        # An array that travels by value is copied out of the object store, which is then free of it; a
        # reference is its owner's to keep there, and is used in place.
        copy = isinstance(source, np.ndarray)
        return self._actors[slot].apply.remote(index, work, source, copy, *args)

    def discard(self, slot: int) -> None:
        """Give up an actor; the next call for one of its blocks starts another.

        Ray does not restart actors here: calls to an actor that is restarting fail at once and burn their
        retries (ray-project/ray#44212), those to a new one wait until it runs.
        """
        import_ray().kill(self._actors.pop(slot))
        del self._ready[slot]

    def next_ready(self, references: list[Any]) -> Any:
        """Wait for one of some calls; says so when workers are what is missing, and gives up in the end."""
        ray = import_ray()
        waited = 0.0
        while True:
            ready, _ = ray.wait(references, num_returns=1, timeout=_SAY_AFTER)
            if ready:
                return ready[0]
            words = self._short_of()
            waited = waited + _SAY_AFTER if words else 0.0
            if waited >= _GIVE_UP_AFTER:
                raise EngineError(f"{words}; waited {waited:.0f} s")
            if waited == _SAY_AFTER:
                warnings.warn(words, RuntimeWarning, stacklevel=2)

    def _short_of(self) -> str:
        """What keeps workers from running, in words; empty if nothing does."""
        ray = import_ray()
        probes = list(self._ready.values())
        waiting = len(ray.wait(probes, num_returns=len(probes), timeout=0)[1])
        cpus, free = (found.get("CPU", 0) for found in (ray.cluster_resources(), ray.available_resources()))
        if not waiting and cpus >= len(probes):
            return ""
        return (
            f"waiting for Ray: {len(probes)} workers need 1 CPU each, and {waiting} have never started; "
            f"the cluster has {cpus:g} CPUs, {free:g} of them free"
        )


class _Pass:
    """One function on its way over all blocks.

    Calls in flight are bounded for each actor, and answers ahead of a late one in all. When an actor dies, what
    it had in flight is tried again by a new one, a call at a time: so the call that it dies of is known.
    """

    def __init__(self, blocks: ResidentBlocks, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._blocks = blocks
        self._work = work
        self._args = args
        self._flight: dict[Any, int] = {}
        self._finished: dict[int, Any] = {}
        self._queues: dict[int, deque[int]] = {slot: deque() for slot in range(blocks.workers)}
        # What dead actors had in flight, until it is answered.
        self._suspects: dict[int, set[int]] = {slot: set() for slot in range(blocks.workers)}
        self._tries: Counter[int] = Counter()

    def run(self, indices: Iterator[int], *, supply: bool) -> Iterator[tuple[int, Any]]:
        """Number and answer of every block, in order."""
        read = awaited = 0
        while True:
            for index in islice(indices, awaited + _WINDOW * self._blocks.workers - read):
                self._queues[self._slot(index)].append(index)
                read += 1
                self._send(supply=supply)
            if not self._flight:
                return
            self._receive()
            self._send(supply=supply)
            while awaited in self._finished:
                yield awaited, self._finished.pop(awaited)
                awaited += 1

    def _slot(self, index: int) -> int:
        return index % self._blocks.workers

    def _send(self, *, supply: bool) -> None:
        """Call every actor that has room; a new one in a dead one's place for a call at a time."""
        busy = Counter(self._slot(index) for index in self._flight.values())
        for slot, queue in self._queues.items():
            while queue and busy[slot] < (1 if self._suspects[slot] else _AHEAD):
                self._submit(queue.popleft(), supply=supply)
                busy[slot] += 1

    def _submit(self, index: int, *, supply: bool) -> None:
        self._flight[self._blocks.submit(index, self._work, self._args, supply=supply)] = index

    def _receive(self) -> None:
        reference = self._blocks.next_ready(list(self._flight))
        index = self._flight[reference]
        try:
            answer = _fetch(reference)
        except _LostCallError as lost:
            self._try_again(index, lost)
            return
        del self._flight[reference]
        if isinstance(answer, MissingBlock):
            self._submit(index, supply=True)
            return
        self._suspects[self._slot(index)].discard(index)
        self._finished[index] = answer

    def _try_again(self, index: int, lost: _LostCallError) -> None:
        slot = self._slot(index)
        self._tries[index] += 1
        if self._tries[index] == _TRIES:
            raise EngineError(f"workers died at every try of block {index}: {lost}") from lost.__cause__
        self._blocks.discard(slot)
        gone = {reference: call for reference, call in self._flight.items() if self._slot(call) == slot}
        for reference in gone:
            del self._flight[reference]
        self._suspects[slot].update(gone.values())
        self._queues[slot].extendleft(reversed(gone.values()))


def _fetch(reference: Any) -> Any:
    ray = import_ray()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # What the function of the block raised, as it would come from a call here.
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        raise _LostCallError((str(error).strip() or type(error).__name__).splitlines()[0]) from error
