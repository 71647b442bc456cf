"""A frontier's curves: what is kept for at most so many bits, whoever keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

Row: TypeAlias = Mapping[str, Any]
TRUNCATED = "truncated SVD"
TO_NEAREST = "round to nearest"
# Two budgets are one if they differ by what float64 rounds off.
_SAME = 1 + 1e-9


def model_rows(table: pa.Table) -> list[Row]:
    """Points of the whole checkpoint."""
    return [row for row in table.to_pylist() if row["scope"] == "model"]


def envelope(rows: Iterable[Row]) -> list[Row]:
    """Rows that keep more than any that takes fewer bits, by their bits."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["bits_per_weight"], -row["r2"])):
        if not best or row["r2"] > best[-1]["r2"]:
            best.append(row)
    return best


def kept_for(rows: Sequence[Row], bits: float) -> Row | None:
    """Which row keeps the most for at most `bits` a weight."""
    affordable = [row for row in rows if row["bits_per_weight"] <= bits * _SAME]
    return max(affordable, key=lambda row: (row["r2"], -row["bits_per_weight"]), default=None)


def of_kind(rows: Iterable[Row], kind: str, curve: str | None = None) -> list[Row]:
    """Codes, nulls or references; of one curve, if it is given."""
    return [row for row in rows if row["kind"] == kind and curve in (None, row["curve"])]


def curves(rows: Iterable[Row]) -> list[str]:
    """Bases swept, in the order given."""
    return list(dict.fromkeys(row["curve"] for row in rows if row["kind"] == "code"))
