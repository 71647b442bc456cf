"""Results of a unit as bytes and back, exactly: a line of JSON, then float64 arrays.

No pickle: a record in a run directory is data, and whoever can write there must not be able to run code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from rct_ray.engine.shard import ShardResult
from rct_ray.transform.basis import Array
from rct_ray.transform.factors import CoordinateFactors
from rct_ray.transform.gathered import GatheredRows
from rct_ray.transform.moments import CoordinateMoments, RowMoments, WeightMoments
from rct_ray.transform.randomized import ColumnMoments

if TYPE_CHECKING:
    from rct_ray.transform.moments import Coordinates

_FLOAT = np.dtype("<f8")
_WEIGHT_FIELDS = tuple(field.name for field in fields(WeightMoments))


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
    results = [_restored(known, cursor) for known in json.loads(header)]
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
        "moments": _moments(result.moments, arrays),
        "nbytes": result.nbytes,
        "seconds_read": result.seconds_read,
        "seconds_encode": result.seconds_encode,
        "seconds": result.seconds,
        "worker": result.worker,
        "attempt": result.attempt,
    }


def _moments(moments: RowMoments, arrays: list[Array]) -> dict[str, Any]:
    return {
        "weights": {name: getattr(moments.weights, name) for name in _WEIGHT_FIELDS},
        "projected": _sizes(moments.projected, arrays),
        "columns": _sizes(moments.columns, arrays),
        "shuffled": None if moments.shuffled is None else _moments(moments.shuffled, arrays),
    }


def _sizes(coordinates: Coordinates | None, arrays: list[Array]) -> list[Any] | None:
    match coordinates:
        case None:
            return None
        case CoordinateMoments(rows, mean, scatter):
            arrays += [mean, scatter]
            return ["moments", rows, len(mean)]
        case CoordinateFactors(rows, mean, factor):
            arrays += [mean, factor]
            return ["factors", rows, *factor.shape]
        case ColumnMoments(rows, mean, squares):
            arrays += [mean, squares]
            return ["columns", rows, len(mean)]
        case GatheredRows():
            stacked = coordinates.stacked()
            arrays.append(stacked)
            return ["rows", *stacked.shape]


def _restored(known: dict[str, Any], cursor: _Cursor) -> ShardResult:
    return ShardResult(moments=_restored_moments(known.pop("moments"), cursor), **known)


def _restored_moments(known: dict[str, Any], cursor: _Cursor) -> RowMoments:
    return RowMoments(
        WeightMoments(**known["weights"]),
        _coordinates(known["projected"], cursor),
        _coordinates(known["columns"], cursor),
        None if known["shuffled"] is None else _restored_moments(known["shuffled"], cursor),
    )


def _coordinates(sizes: list[Any] | None, cursor: _Cursor) -> Coordinates | None:
    match sizes:
        case None:
            return None
        case ["moments", rows, size]:
            return CoordinateMoments(rows, cursor.take(size), cursor.take(size, size))
        case ["factors", rows, height, size]:
            return CoordinateFactors(rows, cursor.take(size), cursor.take(height, size))
        case ["columns", rows, size]:
            return ColumnMoments(rows, cursor.take(size), cursor.take(size))
        case ["rows", rows, size]:
            return GatheredRows((cursor.take(rows, size),))
    raise ValueError(f"a record with {sizes!r} in it")
