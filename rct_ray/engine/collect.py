"""Bring units back into order, record each as it finishes, and skip those recorded before."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from rct_ray.engine.errors import EngineError
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


def collect(
    units: Sequence[Unit],
    finished: Iterable[UnitDone | UnitFailed],
    records: Records,
    earlier: Collection[int],
) -> Iterator[ShardResult]:
    """Results in shard order, whatever the order of completion.

    Parameters
    ----------
    units : sequence of Unit
        The whole plan.
    finished : iterable
        What an engine makes of the units that are not in `earlier`, as it comes.
    records : Records
        Gets every unit as it finishes.
    earlier : collection of int
        Units that are on record already.

    Raises
    ------
    EngineError
        After all other units are recorded, if workers died at every try of some.
    Exception
        What the shard function raised (a checkpoint that changed, say), at once.
    """
    shelf = _Shelf(records, set(earlier))
    arriving = iter(finished)
    for unit in units:
        while not shelf.failed and unit.index not in shelf:
            shelf.receive(next(arriving))
        if shelf.failed:
            break
        yield from shelf.take(unit)
    for outcome in arriving:
        # Keep the rest, for a run that resumes this one.
        shelf.receive(outcome)
    if shelf.failed:
        raise EngineError(_failure(shelf.failed, len(units)))


class _Shelf:
    """Units that finished before their turn: all on record, some of them in memory too."""

    def __init__(self, records: Records, on_record: set[int]) -> None:
        self.failed: list[UnitFailed] = []
        self._records = records
        self._on_record = on_record
        self._in_memory: dict[int, tuple[int, list[ShardResult]]] = {}
        self._bytes = 0

    def __contains__(self, unit: int) -> bool:
        return unit in self._on_record

    def receive(self, outcome: UnitDone | UnitFailed) -> None:
        if isinstance(outcome, UnitFailed):
            if not isinstance(outcome.error, EngineError):
                raise outcome.error
            self.failed.append(outcome)
            return
        index, record = outcome.unit.index, _heading(outcome.unit) + pack(outcome.results)
        self._records.write(index, record)
        self._on_record.add(index)
        if not self.failed and self._bytes + len(record) <= _IN_MEMORY:
            self._in_memory[index] = len(record), outcome.results
            self._bytes += len(record)

    def take(self, unit: Unit) -> list[ShardResult]:
        results: list[ShardResult] | None
        size, results = self._in_memory.pop(unit.index, (0, None))
        self._bytes -= size
        if results is None:
            results = _read(unit, self._records)
        if results is None:
            raise EngineError(f"the record of {unit.described} vanished while the run was going on")
        return results


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


def _failure(failed: Sequence[UnitFailed], total: int) -> str:
    first = failed[0]
    more = f" (and {len(failed) - 1} more units)" if len(failed) > 1 else ""
    return (
        f"{first.unit.described}{more}: {first.error}; "
        f"{total - len(failed)} of {total} units are done and kept, go on with --resume"
    )
