"""Rows kept as they are, for levels so small that nothing need be summed up before they are decomposed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.factors import CoordinateFactors, triangular_factor


@dataclass(frozen=True, slots=True, eq=False)
class GatheredRows:
    """Rows in some coordinates, gathered block by block.

    Attributes
    ----------
    blocks : tuple of ndarray of shape (n_i, m), float64
    """

    blocks: tuple[Array, ...]

    @property
    def rows(self) -> int:
        """Rows gathered so far."""
        return sum(len(block) for block in self.blocks)

    def merge(self, other: GatheredRows) -> GatheredRows:
        """Both sets of rows, in this order."""
        return GatheredRows(self.blocks + other.blocks)

    def stacked(self) -> Array:
        """All rows, shape (n, m)."""
        return np.concatenate(self.blocks)

    def factors(self) -> CoordinateFactors:
        """R of one QR of all rows about their mean, whose singular values are those of the rows."""
        rows = self.stacked()
        mean = rows.mean(axis=0)
        return CoordinateFactors(len(rows), mean, triangular_factor(rows - mean))
