"""Rows of a table one by one, so that a large table is never a list of dictionaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 4096


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries."""
    for batch in table.to_batches(max_chunksize=_AT_ONCE):
        yield from batch.to_pylist()
