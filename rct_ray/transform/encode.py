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
from rct_ray.transform.moments import CoordinateMoments, RowMoments, WeightMoments, coordinate_moments
from rct_ray.transform.randomized import ColumnMoments, column_moments

if TYPE_CHECKING:
    from rct_ray.transform.moments import Coordinates

Weights = NDArray[np.floating[Any]]

# Outside these mean squares float32 products under- or overflow.
_SMALLEST_SQUARE, _LARGEST_SQUARE = 1e-28, 1e28
# float32 sums drop the small terms of what all rows share: the energy errs by about 1e-7 of that share.
_LARGEST_MEAN_SHARE = 2e-3
# Other rounding is random and averages out over rows, if the frame holds little of them and no row dominates.
_LARGEST_KEPT_SHARE = 0.1
_LARGEST_ROW = 32.0
# Coordinates gathered before their moments are taken, which for few rows would be mostly overhead.
_COORDINATES_AT_ONCE = 1 << 16

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
            # White noise has a share K/d of its energy in the frame.
            self._largest_kept = max(_LARGEST_KEPT_SHARE, 1.5 * frame.shape[1] / len(frame))

    def encode(self, block: Weights) -> RowMoments:
        """Moments of a block of rows.

        Parameters
        ----------
        block : ndarray of shape (n, d), float32 or float64
            Not changed. If it holds NaN or Inf, these are counted and no coordinates are returned.
        """
        encoding = self.start()
        encoding.add(block)
        return encoding.moments()

    def start(self) -> Encoding:
        """Start on some rows that come block by block."""
        return Encoding(self)

    def _project_single(self, block: Weights, out: Weights) -> WeightMoments | None:
        """Project in float32 into `out`; None if that could err too much."""
        with np.errstate(over="ignore", invalid="ignore"):
            energies = np.vecdot(block, block)
            energy = float(energies.sum(dtype=np.float64))
        count, rows = block.size, len(block)
        if not _SMALLEST_SQUARE * count < energy < _LARGEST_SQUARE * count:
            return None
        if float(energies.max()) * rows > _LARGEST_ROW * energy:
            return None
        ones = np.ones(rows, np.float32)
        mean = float((ones @ block).sum(dtype=np.float64)) / count
        np.matmul(block, self._frame32, out=out)
        common = ones @ out
        shared = max(count * mean**2, float(common @ common) / rows)
        if shared > _LARGEST_MEAN_SHARE * energy or float(np.vdot(out, out)) > self._largest_kept * energy:
            return None
        return WeightMoments(count, mean, energy - count * mean**2, float(block.min()), float(block.max()))

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


class Encoding:
    """Moments of rows that come block by block."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._single = encoder.single
        self._known: RowMoments | None = None
        # Of the rows whose float32 coordinates are held, but not yet in `_known`.
        self._weights = WeightMoments()
        self._held: Weights | None = None
        self._count = 0

    def add(self, block: Weights) -> None:
        """Take a block of rows, which may be overwritten afterwards."""
        encoder = self._encoder
        if self._single and block.dtype == np.float32:
            weights = encoder._project_single(block, self._room(len(block)))
            if weights is not None:
                self._weights = self._weights.merge(weights)
                self._count += len(block)
                return
            # What float32 can't carry here it can't a few rows on either: don't try each block twice.
            self._single = False
        self._flush()
        self._merge(encoder._encode_double(block))

    def moments(self) -> RowMoments:
        """Moments of all the rows taken."""
        self._flush()
        if self._known is None:
            raise ValueError("no rows")
        return self._known

    def _room(self, rows: int) -> Weights:
        if self._held is None or self._count + rows > len(self._held):
            self._flush()
            assert self._encoder.frame is not None
            size = self._encoder.frame.shape[1]
            if self._held is None or rows > len(self._held):
                self._held = np.empty((max(rows, _COORDINATES_AT_ONCE // size), size), np.float32)
        return self._held[self._count : self._count + rows]

    def _flush(self) -> None:
        if self._count and self._held is not None:
            # The mean as a product: mean(axis=0) of a long thin array is slow. (It may miss the mean of equal
            # rows by a bit, so that their scatter isn't zero; such rows are never held, they have a mean.)
            centred = self._held[: self._count].astype(np.float64)
            mean = np.asarray(np.ones(self._count) @ centred / self._count)
            centred -= mean
            projected = CoordinateMoments(self._count, mean, centred.T @ centred)
            self._merge(RowMoments(self._weights, projected.mapped(self._encoder._unrounding)))
            self._weights, self._count = WeightMoments(), 0

    def _merge(self, moments: RowMoments) -> None:
        self._known = moments if self._known is None else self._known.merge(moments)


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
