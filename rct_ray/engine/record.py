"""Results of a unit as bytes and back, exactly: a line of JSON, then float64 arrays.

No pickle: a record in a run directory is data, and whoever can write there must not be able to run code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rct_ray.engine.shard import ShardResult
from rct_ray.transform.basis import Array
from rct_ray.transform.moments import CoordinateMoments, RowMoments, WeightMoments

_FLOAT = np.dtype("<f8")


def pack(results: Sequence[ShardResult]) -> bytes:
    """Bytes of some results; `unpack` gives back equal ones, to the bit."""
    arrays: list[Array] = []
    described = [_described(result, arrays) for result in results]
    header = json.dumps(described, separators=(",", ":")).encode() + b"\n"
    return header + b"".join(np.ascontiguousarray(array, _FLOAT).tobytes() for array in arrays)


def unpack(record: bytes) -> list[ShardResult]:
    """Results from their bytes.

    Raises
    ------
    ValueError
        If these are not the bytes of a record.
    """
    header, newline, body = record.partition(b"\n")
    if not newline:
        raise ValueError("not a record of a unit")
    values = np.frombuffer(body, _FLOAT)
    cursor = _Cursor(values)
    results = [_restored(fields, cursor) for fields in json.loads(header)]
    if cursor.place != len(values):
        raise ValueError("a record of a unit with values to spare")
    return results


class _Cursor:
    """Takes arrays off a run of values."""

    def __init__(self, values: Array) -> None:
        self.values = values
        self.place = 0

    def take(self, *shape: int) -> Array:
        count = int(np.prod(shape))
        taken = self.values[self.place : self.place + count].reshape(shape)
        self.place += count
        return np.array(taken, np.float64)


def _described(result: ShardResult, arrays: list[Array]) -> dict[str, Any]:
    return {
        "index": result.index,
        "weights": asdict(result.moments.weights),
        "projected": _sizes(result.moments.projected, arrays),
        "columns": _sizes(result.moments.columns, arrays),
        "nbytes": result.nbytes,
        "seconds_read": result.seconds_read,
        "seconds_encode": result.seconds_encode,
        "seconds": result.seconds,
        "worker": result.worker,
        "attempt": result.attempt,
    }


def _sizes(moments: CoordinateMoments | None, arrays: list[Array]) -> list[int] | None:
    if moments is None:
        return None
    arrays += [moments.mean, moments.scatter]
    return [moments.rows, len(moments.mean)]


def _restored(fields: dict[str, Any], cursor: _Cursor) -> ShardResult:
    moments = RowMoments(
        WeightMoments(**fields.pop("weights")),
        _coordinates(fields.pop("projected"), cursor),
        _coordinates(fields.pop("columns"), cursor),
    )
    return ShardResult(moments=moments, **fields)


def _coordinates(sizes: list[int] | None, cursor: _Cursor) -> CoordinateMoments | None:
    if sizes is None:
        return None
    rows, size = sizes
    return CoordinateMoments(rows, cursor.take(size), cursor.take(size, size))
