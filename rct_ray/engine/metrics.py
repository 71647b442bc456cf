"""Counters that Ray exports to Prometheus, from the workers and from the driver.

Ray puts `ray_` before each name. All are counters, so that rates and sums over workers, of which there may be
more or fewer at any time, are what they seem.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rct_ray.engine.notices import CHECKPOINT_DONE, CHECKPOINT_FAILED, RETRY, UNIT_DONE, UNIT_FAILED

if TYPE_CHECKING:
    from rct_ray.engine.shard import ShardResult

BYTES_READ = "rct_ray_bytes_read_total"
SHARDS_DONE = "rct_ray_shards_done_total"
SECONDS = "rct_ray_seconds_total"
UNITS_DONE = "rct_ray_units_done_total"
UNITS_FAILED = "rct_ray_units_failed_total"
RETRIES = "rct_ray_retries_total"
CHECKPOINTS_DONE = "rct_ray_checkpoints_done_total"
CHECKPOINTS_FAILED = "rct_ray_checkpoints_failed_total"

METRICS: Mapping[str, str] = {
    BYTES_READ: "Bytes of weights that workers read.",
    SHARDS_DONE: "Shards that workers finished.",
    SECONDS: "Seconds by phase: read and encode on workers; wait, reduce, tower and write on the driver.",
    UNITS_DONE: "Units of work that the driver has the results of.",
    UNITS_FAILED: "Units of work that were given up.",
    RETRIES: "Units of work that are tried again because their worker died.",
    CHECKPOINTS_DONE: "Checkpoints whose tables are written.",
    CHECKPOINTS_FAILED: "Checkpoints that could not be measured.",
}
_COUNTED = {
    UNIT_DONE: UNITS_DONE,
    UNIT_FAILED: UNITS_FAILED,
    RETRY: RETRIES,
    CHECKPOINT_DONE: CHECKPOINTS_DONE,
    CHECKPOINT_FAILED: CHECKPOINTS_FAILED,
}


class Metrics:
    """The counters of this process, which Ray must have been joined by."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self._counters = {
            name: Counter(name, said, tag_keys=("phase",) if name == SECONDS else ())
            for name, said in METRICS.items()
        }

    def shard(self, result: ShardResult) -> None:
        """Count a shard, where it was done."""
        self._add(BYTES_READ, result.nbytes)
        self._add(SHARDS_DONE, 1)
        self._spent({"read": result.seconds_read, "encode": result.seconds_encode})

    def notice(self, event: str, values: Mapping[str, Any]) -> None:
        """Count what the driver tells."""
        if event in _COUNTED:
            self._add(_COUNTED[event], 1)
        if event == CHECKPOINT_DONE:
            self._spent(values["seconds"])

    def _spent(self, seconds: Mapping[str, float]) -> None:
        for phase, spent in seconds.items():
            self._add(SECONDS, spent, {"phase": phase})

    def _add(self, name: str, amount: float, tags: Mapping[str, str] | None = None) -> None:
        # A counter takes no zero, which a clock may give.
        if amount > 0:
            self._counters[name].inc(amount, tags)
