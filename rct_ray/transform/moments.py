"""Moments of weights and of coordinates: everything a tower needs, from one pass over the rows.

Moments are kept about the mean and merged by the update of Chan, Golub & LeVeque (1979), so that a huge
mean does not cancel the variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array
from rct_ray.transform.spectrum import Spectrum, eigendecomposition

if TYPE_CHECKING:
    from rct_ray.transform.factors import CoordinateFactors
    from rct_ray.transform.gathered import GatheredRows
    from rct_ray.transform.randomized import ColumnMoments

    # How the rows of a level are kept until they are decomposed; all blocks of a width in the same way.
    Coordinates: TypeAlias = "CoordinateMoments | CoordinateFactors | GatheredRows | ColumnMoments"


@dataclass(frozen=True, slots=True)
class WeightMoments:
    """Moments of single weights: count, mean, squares about the mean, extremes, and what was not finite."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    nan_count: int = 0
    inf_count: int = 0

    @property
    def energy(self) -> float:
        """Sum of w^2, the total of R2 about zero."""
        return self.squares + self.count * (self.mean * self.mean)

    @property
    def variance(self) -> float:
        """Population variance; zero without weights."""
        return self.squares / self.count if self.count else 0.0

    @property
    def finite(self) -> bool:
        """Whether every weight, and the sum of their squares, was finite."""
        return not (self.nan_count or self.inf_count) and math.isfinite(self.energy)

    def merge(self, other: WeightMoments) -> WeightMoments:
        """Moments of both sets of weights together."""
        if not self.count or not other.count:
            kept = self if self.count else other
            mean, squares, count = kept.mean, kept.squares, kept.count
        else:
            count = self.count + other.count
            shift = other.mean - self.mean
            mean = self.mean + shift * (other.count / count)
            squares = self.squares + other.squares + shift * shift * (self.count * other.count / count)
        return WeightMoments(
            count=count,
            mean=mean,
            squares=squares,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            nan_count=self.nan_count + other.nan_count,
            inf_count=self.inf_count + other.inf_count,
        )


@dataclass(frozen=True, slots=True, eq=False)
class CoordinateMoments:
    """Moments of rows in some coordinates.

    Attributes
    ----------
    rows : int
    mean : ndarray of shape (m,), float64
    scatter : ndarray of shape (m, m), float64
        Sum over rows of (x - mean)^T (x - mean).
    """

    rows: int
    mean: Array
    scatter: Array

    @property
    def energy(self) -> float:
        """Sum of squares of all coordinates, about zero."""
        return float(np.trace(self.scatter) + self.rows * (self.mean @ self.mean))

    @property
    def second_moment(self) -> Array:
        """X^T X, about zero."""
        return np.asarray(self.scatter + self.rows * np.outer(self.mean, self.mean))

    def squares_of(self, linear: Array) -> float:
        """Sum of squares of the centred rows times `linear`, shape (m, n): tr(L^T S L)."""
        return float(np.vdot(linear, self.scatter @ linear))

    def spectrum(self) -> Spectrum:
        """Eigenvalues and eigenvectors of the scatter."""
        return eigendecomposition(self.scatter)

    def spectrum_about_zero(self) -> Spectrum:
        """Eigenvalues and eigenvectors of X^T X."""
        return eigendecomposition(self.second_moment)

    def merge(self, other: CoordinateMoments) -> CoordinateMoments:
        """Moments of both sets of rows together."""
        rows = self.rows + other.rows
        shift = other.mean - self.mean
        correction = np.outer(shift, shift) * (self.rows * other.rows / rows)
        return CoordinateMoments(
            rows, self.mean + shift * (other.rows / rows), self.scatter + other.scatter + correction
        )

    def mapped(self, linear: Array) -> CoordinateMoments:
        """Moments of X @ linear."""
        return CoordinateMoments(self.rows, self.mean @ linear, linear.T @ self.scatter @ linear)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMoments(CoordinateMoments):
    """Moments of principal scores: their scatter is diagonal and descending, its own decomposition."""

    def spectrum(self) -> Spectrum:
        """Eigenvalues and eigenvectors of the scatter."""
        return Spectrum(np.diagonal(self.scatter).copy(), np.eye(len(self.mean)))


@dataclass(frozen=True, slots=True, eq=False)
class RowMoments:
    """All that is kept of a set of rows.

    `projected` are moments of W Q in a fixed frame, `columns` those of the d columns themselves (the d x d
    scatter that SVD stages and the SVD bound need); moments, or factors, or the rows themselves. Either is
    None when nobody asked for it, or when the rows hold something not finite. `shuffled` is the same of the
    same weights with their entries shuffled, where that is what the null is measured on.
    """

    weights: WeightMoments
    projected: Coordinates | None = None
    columns: Coordinates | None = None
    shuffled: RowMoments | None = None

    @property
    def rows(self) -> int:
        """Rows seen with finite weights."""
        known = self.columns if self.projected is None else self.projected
        return 0 if known is None else known.rows

    def merge(self, other: RowMoments) -> RowMoments:
        """Moments of both sets of rows together."""
        return RowMoments(
            self.weights.merge(other.weights),
            _merged(self.projected, other.projected),
            _merged(self.columns, other.columns),
            self.shuffled.merge(other.shuffled) if self.shuffled and other.shuffled else None,
        )


def merge_all(moments: Iterable[RowMoments]) -> RowMoments:
    """Merge in the order given, which is what makes a table equal to the bit for any number of workers."""
    return reduce(RowMoments.merge, moments)


def coordinate_moments(coordinates: NDArray[np.floating[Any]]) -> CoordinateMoments:
    """Moments of a block of rows, shape (n, m), n >= 1, in float64."""
    centred = coordinates.astype(np.float64)
    mean = centred.mean(axis=0)
    centred -= mean
    return CoordinateMoments(len(centred), mean, centred.T @ centred)


def _merged(left: Coordinates | None, right: Coordinates | None) -> Coordinates | None:
    if left is None or right is None:
        return right if left is None else left
    if type(left) is not type(right):
        raise TypeError(f"can't merge {type(left).__name__} with {type(right).__name__}")
    return left.merge(right)  # type: ignore[arg-type]
