"""How much memory a worker may take, as a cluster's scheduler is told."""

from __future__ import annotations

from collections.abc import Iterable

from rct_ray.engine.plan import Shard
from rct_ray.engine.shard import ShardTask
from rct_ray.engine.units import Unit
from rct_ray.transform.stages import first_coordinates

# A Ray worker with NumPy and this package imported, before it reads anything, and what its allocator keeps.
_PROCESS = 256 << 20
# Copies of a block while it is encoded (as stored, as floats, projected), and of a result on its way.
_BLOCKS, _RESULTS = 4, 3
_GRAIN = 64 << 20


def worker_bytes(units: Iterable[Unit], task: ShardTask) -> int:
    """Most bytes that a worker takes for any of some units; a multiple of 64 MiB.

    Parameters
    ----------
    units : iterable of Unit
    task : ShardTask
    """
    most = 0
    for unit in units:
        results = sum(_result_bytes(shard, task) for shard in unit.shards)
        block = max(_block_bytes(shard, task) for shard in unit.shards)
        most = max(most, _RESULTS * results + _BLOCKS * block)
    return -(-(_PROCESS + most) // _GRAIN) * _GRAIN


def _result_bytes(shard: Shard, task: ShardTask) -> int:
    width = shard.entry.width
    kept = first_coordinates(task.first_stage, width)
    columns = width * width if shard.columns else 0
    projected = {
        "moments": kept * kept,
        "tsqr": min(shard.n_rows, kept) * kept,
        "gather": shard.n_rows * kept,
    }.get(shard.summary, 2 * kept)
    return 8 * (columns + projected)


def _block_bytes(shard: Shard, task: ShardTask) -> int:
    # Values may be stored in one byte and taken as eight.
    row = 8 * shard.entry.width
    return max(8 * task.block_bytes, 512 * row if shard.columns else 64 * row)
