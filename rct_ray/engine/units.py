"""Units: groups of shards that travel, finish and are recorded together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rct_ray.engine.plan import Shard
from rct_ray.engine.shard import ShardResult

# A call to a worker and a record cost the driver one or two milliseconds, so small shards travel together. A
# large plan has 64 units or, since a unit lost is to cost no more than a blink, units of 256 MiB.
_UNITS = 64
_SMALLEST, _LARGEST = 8 << 20, 256 << 20
_UNIT_SHARDS = 64


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive shards of one checkpoint.

    Attributes
    ----------
    index : int
        Place among the checkpoint's units.
    shards : tuple of Shard
    checkpoint : int
        Which of the run's checkpoints.
    """

    index: int
    shards: tuple[Shard, ...]
    checkpoint: int = 0

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from every other unit of the run."""
        return self.checkpoint, self.index

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def described(self) -> str:
        """The shards, for a message."""
        first, last = self.shards[0], self.shards[-1]
        if first is last:
            return f"shard {first.index} ({first.entry.name}, rows {first.start} to {first.stop})"
        return f"shards {first.index} to {last.index} ({first.entry.name} to {last.entry.name})"


@dataclass(frozen=True, slots=True)
class UnitDone:
    """A unit's results, in shard order."""

    unit: Unit
    results: list[ShardResult]


@dataclass(frozen=True, slots=True)
class UnitFailed:
    """What stopped a unit: an error of the shard function, or an EngineError when its workers died."""

    unit: Unit
    error: Exception


def make_units(shards: Sequence[Shard]) -> list[Unit]:
    """Group shards in plan order; depends on the plan alone, so that a resumed run finds the same units."""
    most = min(max(_SMALLEST, sum(shard.nbytes for shard in shards) // _UNITS), _LARGEST)
    groups: list[list[Shard]] = []
    size = 0
    for shard in shards:
        if not groups or len(groups[-1]) == _UNIT_SHARDS or size + shard.nbytes > most:
            groups.append([])
            size = 0
        groups[-1].append(shard)
        size += shard.nbytes
    return [Unit(index, tuple(group)) for index, group in enumerate(groups)]
