"""From a block of rows to its moments: the one hot loop of the product.

Every weight is touched while its block sits in cache: projected, squared, summed and compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array
from rct_ray.transform.factors import coordinate_factors
from rct_ray.transform.gathered import GatheredRows
from rct_ray.transform.moments import RowMoments, WeightMoments, coordinate_moments
from rct_ray.transform.randomized import ColumnMoments, column_moments

if TYPE_CHECKING:
    from rct_ray.transform.moments import Coordinates

Weights = NDArray[np.floating[Any]]

# Outside these mean squares float32 products under- or overflow.
_SMALLEST_SQUARE, _LARGEST_SQUARE = 1e-28, 1e28
# float32 products of rows round the same way along a common mean: above this share of the energy the pooled
# R2 would err by more than 1e-9.
_LARGEST_MEAN_SHARE = 0.01

Summary: TypeAlias = Literal["moments", "tsqr", "gather", "randomized"]


def _gathered(coordinates: Array) -> GatheredRows:
    return GatheredRows((coordinates.copy(),))


def _summed_columns(coordinates: Array) -> ColumnMoments:
    return column_moments(coordinates, np.zeros(coordinates.shape[1]))


_SUMMARIES: dict[Summary, Callable[[Array], Coordinates]] = {
    "moments": coordinate_moments,
    "tsqr": coordinate_factors,
    "gather": _gathered,
    "randomized": _summed_columns,
}


class Encoder:
    """Turns blocks of rows into moments, in a fixed frame.

    Parameters
    ----------
    frame : ndarray of shape (d, K), float64, or None
        Orthonormal columns to project on; None if only the columns' own moments are wanted.
    columns : bool
        Whether to keep the d x d moments of the columns.
    single : bool
        Project float32 blocks in float32 (twice as fast). Products of a row then err by about 1e-7 of the
        row's norm; sums over rows are float64 and the frame's own rounding is corrected, so the pooled
        energy of many rows errs far less. Blocks whose mean or scale float32 can't carry are done again in
        float64.
    summary : {"moments", "tsqr", "gather", "randomized"}
        How to keep the coordinates that later stages decompose: their scatter, triangular factors, the rows
        themselves, or no more than each column's mean and squares, for who comes back for the rest.
    """

    def __init__(
        self,
        frame: Array | None,
        *,
        columns: bool = False,
        single: bool = False,
        summary: Summary = "moments",
    ) -> None:
        self.frame = frame
        self.columns = columns
        self.single = single and frame is not None and not columns and summary == "moments"
        # What later stages decompose is kept as asked for; the columns' moments beside it are only summed.
        self._summarise = _SUMMARIES[summary]
        self._summarise_columns = self._summarise if frame is None else coordinate_moments
        if self.single and frame is not None:
            self._frame32 = frame.astype(np.float32)
            # Rows inside the frame's span are B Q^T; projecting them on the rounded frame gives B (Q^T Q32).
            self._unrounding: Array = np.linalg.inv(frame.T @ self._frame32.astype(np.float64)).astype(
                np.float64
            )
            self._ones = np.ones(len(frame), np.float32)

    def encode(self, block: Weights) -> RowMoments:
        """Moments of a block of rows.

        Parameters
        ----------
        block : ndarray of shape (n, d), float32 or float64
            Not changed. If it holds NaN or Inf, these are counted and no coordinates are returned.
        """
        if self.single and block.dtype == np.float32:
            moments = self._encode_single(block)
            if moments is not None:
                return moments
        return self._encode_double(block)

    def _encode_single(self, block: Weights) -> RowMoments | None:
        with np.errstate(over="ignore", invalid="ignore"):
            energy = float(np.vecdot(block, block).sum(dtype=np.float64))
        count = block.size
        if not _SMALLEST_SQUARE * count < energy < _LARGEST_SQUARE * count:
            return None
        total = float(np.vecdot(block, self._ones).sum(dtype=np.float64))
        projected = coordinate_moments(block @ self._frame32)
        mean = total / count
        spread = float(np.trace(projected.scatter))
        if max(count * mean**2, projected.energy - spread) > _LARGEST_MEAN_SHARE * energy:
            return None
        weights = WeightMoments(count, mean, energy - count * mean**2, float(block.min()), float(block.max()))
        return RowMoments(weights, projected.mapped(self._unrounding))

    def _encode_double(self, block: Weights) -> RowMoments:
        exact = block.astype(np.float64)
        weights = _weight_moments(exact)
        if not weights.finite:
            return RowMoments(weights)
        projected = columns = None
        if self.frame is not None:
            projected = self._summarise(exact @ self.frame)
        if self.columns:
            columns = self._summarise_columns(exact)
        return RowMoments(weights, projected, columns)


def _weight_moments(exact: Array) -> WeightMoments:
    minimum, maximum = float(exact.min()), float(exact.max())
    if not (math.isfinite(minimum) and math.isfinite(maximum)):
        nans, infs = int(np.isnan(exact).sum()), int(np.isinf(exact).sum())
        return WeightMoments(exact.size, nan_count=nans, inf_count=infs)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(exact.mean())
        energy = float(np.vecdot(exact, exact).sum())
        squares = energy - exact.size * (mean * mean)
        if squares < 1e-3 * energy:
            centred = exact - mean
            squares = float(np.vecdot(centred, centred).sum())
    return WeightMoments(exact.size, mean, squares, minimum, maximum)
