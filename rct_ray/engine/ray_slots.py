"""What the Ray engine knows of each of its actors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rct_ray.engine.shard import ShardResult
from rct_ray.engine.units import Unit


@dataclass(slots=True, eq=False)
class Apart:
    """A unit on its last try: its shards go one by one, so that the one that kills can be told."""

    unit: Unit
    results: list[ShardResult] = field(default_factory=list)

    def next(self) -> Unit:
        """The shard whose turn it is, as a unit."""
        return Unit(self.unit.index, (self.unit.shards[len(self.results)],), self.unit.checkpoint)


@dataclass(slots=True, eq=False)
class Slot:
    """One actor and the calls it has."""

    actor: Any
    starting: Any
    calls: dict[Any, Unit] = field(default_factory=dict)
    alone: bool = False
    apart: Apart | None = None
