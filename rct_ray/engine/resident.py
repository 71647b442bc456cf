"""Blocks of rows that live on Ray actors, and one loop that takes a function to them.

No block is state that can be lost: where it came from (a callable, an object reference, or the caller's own
array) stays known here, and an actor that takes the place of a dead one is handed its blocks again as it says
that it misses them.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.engine.errors import EngineError
from rct_ray.engine.ray_engine import _import_ray, _own_sigterm

Block: TypeAlias = NDArray[Any]
# What a block may be given as; ObjectRef is Ray's, and Ray is not imported here.
Source: TypeAlias = Any

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


class _Missing:
    """Answer of an actor that does not hold a block."""


class _LostCallError(Exception):
    """The actor of a call, or what it answered, is no more."""


class BlockHolder:
    """The actor's body: blocks by number, and a door for functions of one block."""

    def __init__(self) -> None:
        from threadpoolctl import threadpool_limits

        # One BLAS thread a worker: the last bit of a product may depend on it.
        threadpool_limits(1)
        self._blocks: dict[int, Block] = {}

    def apply(self, index: int, work: Callable[..., Any], supply: Source, copy: bool, *args: Any) -> Any:
        """`work(block, *args)`, or `_Missing` if the block is neither here nor supplied."""
        if index not in self._blocks:
            if supply is None:
                return _Missing()
            self._blocks[index] = _as_block(supply() if callable(supply) else supply, index, copy)
        with np.errstate(invalid="ignore", over="ignore"):
            return work(self._blocks[index], *args)

    def forget(self) -> None:
        """Hold nothing."""
        self._blocks.clear()


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
        ray = _import_ray()
        self._started = not ray.is_initialized()
        if self._started:
            with _own_sigterm():
                ray.init(**_settings(address or os.environ.get("RAY_ADDRESS") or "local", workers))
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

        return [answer for _, answer in self._run(arriving(), describe, (), supply=True)]

    def map(self, work: Callable[..., Any], *args: Any) -> Iterator[tuple[int, Any]]:
        """`work(block, *args)` of every block where it is, in order of the blocks.

        Parameters
        ----------
        work : callable
            A function of a module that workers can import.
        *args
            Sent along; large arrays travel to a node once.
        """
        ray = _import_ray()
        shared = tuple(
            ray.put(value) if getattr(value, "nbytes", 0) > _SHARED_BYTES else value for value in args
        )
        return self._run(iter(range(len(self._sources))), work, shared, supply=False)

    def forget(self) -> None:
        """Drop all blocks; the actors stay. Calls to an actor are done in order, so what is on its way goes too."""
        for actor in self._actors.values():
            actor.forget.remote()
        self._sources = []

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        ray = _import_ray()
        if ray.is_initialized():
            for actor in self._actors.values():
                ray.kill(actor)
            if self._started:
                ray.shutdown()
        self._actors, self._ready, self._sources, self._started = {}, {}, [], False

    def _run(
        self, indices: Iterator[int], work: Callable[..., Any], args: tuple[Any, ...], *, supply: bool
    ) -> Iterator[tuple[int, Any]]:
        """The loop: calls in flight are bounded for each actor, answers ahead of a late one in all."""
        flight: dict[Any, int] = {}
        finished: dict[int, Any] = {}
        tries: Counter[int] = Counter()
        upcoming = next(indices, None)
        awaited = 0
        while upcoming is not None or flight:
            while upcoming is not None and self._room_for(upcoming, flight, awaited):
                flight[self._submit(upcoming, work, args, supply=supply)] = upcoming
                upcoming = next(indices, None)
            reference = self._next_ready(list(flight))
            index = flight[reference]
            try:
                answer = _fetch(reference)
            except _LostCallError as lost:
                tries[index] += 1
                if tries[index] == _TRIES:
                    raise EngineError(
                        f"workers died at every try of block {index}: {lost}"
                    ) from lost.__cause__
                for call in self._replace(index % self.workers, flight):
                    flight[self._submit(call, work, args, supply=True)] = call
                continue
            del flight[reference], reference
            if isinstance(answer, _Missing):
                flight[self._submit(index, work, args, supply=True)] = index
                continue
            finished[index] = answer
            del answer
            while awaited in finished:
                yield awaited, finished.pop(awaited)
                awaited += 1

    def _room_for(self, index: int, flight: dict[Any, int], awaited: int) -> bool:
        busy = sum(other % self.workers == index % self.workers for other in flight.values())
        return busy < _AHEAD and index < awaited + _WINDOW * self.workers

    def _submit(self, index: int, work: Callable[..., Any], args: tuple[Any, ...], *, supply: bool) -> Any:
        slot = index % self.workers
        if slot not in self._actors:
            self._actors[slot] = self._body.remote()
            self._ready[slot] = self._actors[slot].__ray_ready__.remote()
        source = self._sources[index] if supply else None
        # An array that travels by value is copied out of the object store, which is then free of it; a
        # reference is its owner's to keep there, and is used in place.
        copy = isinstance(source, np.ndarray)
        return self._actors[slot].apply.remote(index, work, source, copy, *args)

    def _replace(self, slot: int, flight: dict[Any, int]) -> list[int]:
        """Give up an actor; take its calls out of flight, and say which they were.

        Its calls ran in order, so the first to be found lost is the one that it died of; only that one is held
        against its block. Ray does not restart actors here: calls to an actor that is restarting fail at once
        and burn their retries (ray-project/ray#44212), those to a new one wait until it runs.
        """
        _import_ray().kill(self._actors.pop(slot))
        del self._ready[slot]
        lost = {reference: index for reference, index in flight.items() if index % self.workers == slot}
        for reference in lost:
            del flight[reference]
        return list(lost.values())

    def _next_ready(self, references: list[Any]) -> Any:
        ray = _import_ray()
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
        ray = _import_ray()
        probes = list(self._ready.values())
        waiting = len(ray.wait(probes, num_returns=len(probes), timeout=0)[1])
        cpus, free = (found.get("CPU", 0) for found in (ray.cluster_resources(), ray.available_resources()))
        if not waiting and cpus >= len(probes):
            return ""
        return (
            f"waiting for Ray: {len(probes)} workers need 1 CPU each, and {waiting} have never started; "
            f"the cluster has {cpus:g} CPUs, {free:g} of them free"
        )


def _settings(address: str, workers: int | None) -> dict[str, Any]:
    if address != "local":
        return {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    return {
        "address": "local",
        "num_cpus": workers or os.cpu_count() or 1,
        "num_gpus": 0,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
        "object_store_memory": _STORE_BYTES,
    }


def _fetch(reference: Any) -> Any:
    ray = _import_ray()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # What the function of the block raised, as it would come from a call here.
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        raise _LostCallError((str(error).strip() or type(error).__name__).splitlines()[0]) from error


def _as_block(source: Source, index: int, copy: bool) -> Block:
    """An array as it is to be held: as narrow as it came, but floating."""
    block = np.asarray(source)
    if block.ndim != 2:
        raise ValueError(f"block {index} has {block.ndim} dimensions, not 2")
    if block.dtype.kind in "iub":
        return block.astype(np.float64)
    if not np.can_cast(block.dtype, np.float64):
        raise ValueError(f"block {index} holds {block.dtype}, not numbers up to float64")
    return block.copy() if copy else block
