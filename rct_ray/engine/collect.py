"""Bring units back into order, record each as it finishes, and skip those recorded before."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rct_ray.engine.errors import EngineError
from rct_ray.engine.notices import UNIT_DONE, UNIT_FAILED, Notice, unheard
from rct_ray.engine.record import pack, unpack
from rct_ray.engine.shard import ShardResult
from rct_ray.engine.units import Unit, UnitDone, UnitFailed

# Bytes of units that may wait in memory for an earlier one; the rest waits on disk.
_IN_MEMORY = 64 << 20


class Records(Protocol):
    """Where finished units are kept (a run directory's `UnitStore`)."""

    def read(self, unit: int) -> bytes | None:
        """Bytes of a unit, None if it is not there or not whole."""

    def write(self, unit: int, record: bytes) -> None:
        """Keep a unit, atomically."""


def recorded(units: Sequence[Unit], records: Records) -> set[int]:
    """Indices of the units that an earlier run finished; unreadable records count as missing."""
    return {unit.index for unit in units if _read(unit, records) is not None}


@dataclass(frozen=True, slots=True)
class Work:
    """The units of one checkpoint.

    Attributes
    ----------
    label : str
        The checkpoint's name, for messages.
    units : sequence of Unit
        The whole plan.
    records : Records
        Gets every unit as it finishes.
    earlier : collection of int
        Units that are on record already.
    """

    label: str
    units: Sequence[Unit]
    records: Records
    earlier: Collection[int] = ()

    @property
    def left(self) -> list[Unit]:
        """Units that an engine has yet to do."""
        return [unit for unit in self.units if unit.index not in self.earlier]


class Collector:
    """Gives each checkpoint its results in shard order, whatever the order of completion.

    The engine works on all checkpoints together: while the results of one are taken, those of later ones are
    recorded as they come.

    Parameters
    ----------
    works : sequence of Work
        By the number that their units have as `checkpoint`.
    finished : iterable
        What an engine makes of the units that are left, as it comes.
    notice : callable, optional
        Hears of every unit.
    """

    def __init__(
        self, works: Sequence[Work], finished: Iterable[UnitDone | UnitFailed], notice: Notice = unheard
    ) -> None:
        self._works = works
        self._arriving = iter(finished)
        self._notice = notice
        self._on_record = {(number, unit) for number, work in enumerate(works) for unit in work.earlier}
        self._outstanding = sum(len(work.left) for work in works)
        self._lost: list[UnitFailed] = []
        self._broken: dict[int, Exception] = {}
        self._in_memory: dict[tuple[int, int], tuple[int, list[ShardResult]]] = {}
        self._bytes = 0

    def results(self, checkpoint: int) -> Iterator[ShardResult]:
        """Results of a checkpoint, in shard order.

        Raises
        ------
        EngineError
            After all other units of the run are recorded, if workers died at every try of some.
        Exception
            What the shard function raised (a checkpoint that changed, say), at once.
        """
        for unit in self._works[checkpoint].units:
            while not self._lost and checkpoint not in self._broken and unit.key not in self._on_record:
                self._receive(next(self._arriving))
            if checkpoint in self._broken:
                raise self._broken[checkpoint]
            if self._lost:
                break
            yield from self._take(unit)
        if self._lost or not self._outstanding:
            # Keep the rest, for a run that resumes this one; and let the engine end what has nothing to do.
            self.drain()
        if checkpoint in self._broken:
            raise self._broken[checkpoint]
        if self._lost:
            raise EngineError(self._failure())

    def drain(self) -> None:
        """Record all that is still to come."""
        for outcome in self._arriving:
            self._receive(outcome)

    def give_up(self, checkpoint: int, error: Exception) -> None:
        """Take no more interest in a checkpoint."""
        self._broken.setdefault(checkpoint, error)
        for key in [key for key in self._in_memory if key[0] == checkpoint]:
            self._bytes -= self._in_memory.pop(key)[0]

    def _receive(self, outcome: UnitDone | UnitFailed) -> None:
        unit = outcome.unit
        self._outstanding -= 1
        work = self._works[unit.checkpoint]
        about = {"checkpoint": work.label, "unit": unit.index, "shards": len(unit.shards)}
        if isinstance(outcome, UnitFailed):
            self._notice(UNIT_FAILED, {**about, "error": str(outcome.error)})
            if isinstance(outcome.error, EngineError):
                self._lost.append(outcome)
            else:
                self._broken.setdefault(unit.checkpoint, outcome.error)
            return
        self._notice(UNIT_DONE, {**about, **_spent(outcome)})
        if unit.checkpoint in self._broken:
            return
        record = _heading(unit) + pack(outcome.results)
        work.records.write(unit.index, record)
        self._on_record.add(unit.key)
        if not self._lost and self._bytes + len(record) <= _IN_MEMORY:
            self._in_memory[unit.key] = len(record), outcome.results
            self._bytes += len(record)

    def _take(self, unit: Unit) -> list[ShardResult]:
        results: list[ShardResult] | None
        size, results = self._in_memory.pop(unit.key, (0, None))
        self._bytes -= size
        if results is None:
            results = _read(unit, self._works[unit.checkpoint].records)
        if results is None:
            raise EngineError(f"the record of {unit.described} vanished while the run was going on")
        return results

    def _failure(self) -> str:
        first, total = self._lost[0], sum(len(work.units) for work in self._works)
        more = f" (and {len(self._lost) - 1} more units)" if len(self._lost) > 1 else ""
        of = f" of {self._works[first.unit.checkpoint].label}" if len(self._works) > 1 else ""
        return (
            f"{first.unit.described}{of}{more}: {first.error}; "
            f"{len(self._on_record)} of {total} units are done and kept, go on with --resume"
        )


def collect(
    units: Sequence[Unit],
    finished: Iterable[UnitDone | UnitFailed],
    records: Records,
    earlier: Collection[int],
) -> Iterator[ShardResult]:
    """Results of a run over one checkpoint, in shard order; see `Collector`."""
    return Collector([Work("", units, records, earlier)], finished).results(0)


def _spent(outcome: UnitDone) -> dict[str, Any]:
    results = outcome.results
    return {
        "bytes": sum(result.nbytes for result in results),
        "seconds_read": round(sum(result.seconds_read for result in results), 6),
        "seconds_encode": round(sum(result.seconds_encode for result in results), 6),
        "worker": results[0].worker,
        "attempt": results[0].attempt,
    }


def _read(unit: Unit, records: Records) -> list[ShardResult] | None:
    record, heading = records.read(unit.index), _heading(unit)
    if record is None or not record.startswith(heading):
        return None
    try:
        results = unpack(record[len(heading) :])
    except (ValueError, TypeError, KeyError):
        return None
    indices = [result.index for result in results]
    return results if indices == [shard.index for shard in unit.shards] else None


def _heading(unit: Unit) -> bytes:
    """What a unit is of, as its record says it: one of another plan must not pass for it."""
    shards = [
        [shard.entry.name, shard.entry.dtype, shard.entry.width, shard.start, shard.stop, shard.n_rows]
        for shard in unit.shards
    ]
    return json.dumps(shards, separators=(",", ":")).encode() + b"\n"
