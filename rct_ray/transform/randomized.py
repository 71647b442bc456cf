"""Leading principal components of very wide rows, by random projection.

Randomized subspace iteration (Halko, Martinsson & Tropp, 2011, algorithms 4.4 and 5.1): a random subspace is
multiplied by X^T X a few times and orthonormalised at every half step, so that directions below the root of
the rounding error are not lost. The rows stay where they are: all that is asked of them are two products, each
one pass over the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array
from rct_ray.transform.factors import (
    CoordinateFactors,
    coordinate_factors,
    merge_tree,
    shifted_chunks,
    singular_spectrum,
)
from rct_ray.transform.spectrum import Spectrum

OVERSAMPLING = 10
# Multiplications by X^T X: at least, and at most while singular values still move by more than this share of
# the largest.
POWER_ITERATIONS = 4
_MOST_ITERATIONS = 12
_SETTLED = 1e-9
# Components that the first try for a share of the variance has room for.
_FIRST_RANK = 32
_CHUNK_ROWS = 1024


class Rows(Protocol):
    """Centred rows X, shape (n, K), that answer two questions, each by one pass."""

    @property
    def rows(self) -> int:
        """N."""
        ...

    @property
    def width(self) -> int:
        """K."""
        ...

    def factors(self, basis: Array | None) -> CoordinateFactors:
        """Factors of X @ basis, basis of shape (K, l); of X itself for None."""
        ...

    def scatter_times(self, basis: Array) -> Array:
        """X^T (X @ basis), shape (K, l)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ColumnMoments:
    """Mean of every column and the sum of squares about it: all that centring and the total need.

    Attributes
    ----------
    rows : int
    mean, squares : ndarray of shape (K,), float64
    """

    rows: int
    mean: Array
    squares: Array

    def merge(self, other: ColumnMoments) -> ColumnMoments:
        """Moments of both sets of rows (Chan, Golub & LeVeque 1979); not both may be empty."""
        rows = self.rows + other.rows
        shift = other.mean - self.mean
        between = shift**2 * (self.rows * other.rows / rows)
        return ColumnMoments(
            rows, self.mean + shift * (other.rows / rows), self.squares + other.squares + between
        )


def column_moments(block: NDArray[np.floating[Any]], origin: Array) -> ColumnMoments:
    """Moments of the columns of block - origin, any number of rows."""
    whole = ColumnMoments(0, np.zeros(block.shape[1]), np.zeros(block.shape[1]))
    for chunk in shifted_chunks(block, origin, _CHUNK_ROWS):
        mean = chunk.mean(axis=0)
        chunk -= mean
        whole = whole.merge(ColumnMoments(len(chunk), mean, np.einsum("ij,ij->j", chunk, chunk)))
    return whole


def block_scatter_times(block: NDArray[np.floating[Any]], mean: Array, basis: Array) -> Array:
    """(block - mean)^T (block - mean) @ basis, without centring more than a few rows at a time."""
    product = np.zeros(basis.shape)
    for chunk in shifted_chunks(block, mean, _CHUNK_ROWS):
        product += chunk.T @ (chunk @ basis)
    return product


class BlockRows:
    """Blocks of rows in this process, centred about their mean.

    Parameters
    ----------
    blocks : sequence of ndarray of shape (n_i, K)
        With a row at least among them.
    """

    def __init__(self, blocks: Sequence[NDArray[np.floating[Any]]]) -> None:
        self._blocks = blocks
        first = next(block for block in blocks if len(block))
        origin = np.asarray(first[0], dtype=np.float64)
        columns = merge_tree([column_moments(block, origin) for block in blocks])
        self.rows, self.width = columns.rows, len(columns.mean)
        self.mean = origin + columns.mean
        self.total = float(columns.squares.sum())

    def factors(self, basis: Array | None) -> CoordinateFactors:
        """Factors of X @ basis; of X itself for None."""
        return merge_tree([coordinate_factors(block, self.mean, basis) for block in self._blocks])

    def scatter_times(self, basis: Array) -> Array:
        """X^T (X @ basis)."""
        product = np.zeros(basis.shape)
        for block in self._blocks:
            product += block_scatter_times(block, self.mean, basis)
        return product


def leading_spectrum(
    rows: Rows, n_components: int, *, seed: int = 0, most_iterations: int = _MOST_ITERATIONS
) -> Spectrum:
    """Leading eigenvalues and eigenvectors of X^T X.

    Parameters
    ----------
    rows : Rows
    n_components : int
        At most min(n, K).
    seed : int
        Of the random subspace.
    most_iterations : int
        Multiplications by X^T X, at most. There are 4 (`POWER_ITERATIONS`), and more while the singular values
        asked for still move by over 1e-9 of the largest: a spectrum that hardly decays takes them all.

    Returns
    -------
    Spectrum
        `n_components` of each. Exact, by one QR of all rows, where the subspace (10 more than asked for)
        would be more than half of all there is: then it would save nothing.
    """
    size = n_components + OVERSAMPLING
    if size > _largest_subspace(rows):
        return _first(singular_spectrum(rows.factors(None).factor), n_components)
    subspace = _grown(None, rows.width, size, np.random.default_rng(seed))
    return _first(_rayleigh_ritz(rows, _iterated(rows, subspace, most_iterations)), n_components)


def spectrum_reaching(
    rows: Rows, threshold: float, total: float, *, seed: int = 0, most_iterations: int = _MOST_ITERATIONS
) -> Spectrum:
    """As many leading eigenvalues and eigenvectors of X^T X as hold a share of the variance.

    The subspace doubles, keeping what it has found, until its components without the oversampled ones reach
    the share; when it would outgrow half of min(n, K) all components are computed exactly instead.

    Parameters
    ----------
    rows : Rows
    threshold : float
        Share to reach, in (0, 1].
    total : float
        Trace of X^T X.
    seed, most_iterations : int
        As for `leading_spectrum`.
    """
    random = np.random.default_rng(seed)
    subspace: Array | None = None
    size = _FIRST_RANK + OVERSAMPLING
    while size <= _largest_subspace(rows):
        subspace = _iterated(rows, _grown(subspace, rows.width, size, random), most_iterations)
        found = _first(_rayleigh_ritz(rows, subspace), size - OVERSAMPLING)
        reached = np.flatnonzero(np.cumsum(found.eigenvalues) >= threshold * total)
        if len(reached):
            return _first(found, int(reached[0]) + 1)
        size = 2 * size
    exact = singular_spectrum(rows.factors(None).factor)
    running = np.cumsum(exact.eigenvalues)
    return _first(exact, int(np.searchsorted(running, threshold * running[-1])) + 1)


def _largest_subspace(rows: Rows) -> int:
    return min(rows.rows, rows.width) // 2


def _grown(subspace: Array | None, width: int, size: int, random: np.random.Generator) -> Array:
    """An orthonormal basis of the subspace and of random directions, `size` columns together."""
    known = np.zeros((width, 0)) if subspace is None else subspace
    fresh = random.standard_normal((width, size - known.shape[1]))
    return np.asarray(np.linalg.qr(np.hstack([known, fresh])).Q)


def _iterated(rows: Rows, subspace: Array, most: int) -> Array:
    """Multiply a subspace by X^T X until its singular values settle, orthonormalising after X and after X^T.

    After X the orthonormal basis is X P with P = V S^-1 from the SVD of the factor of X @ subspace, which is
    as orthonormal as rounding lets any basis of that image be; n rows of it are never kept.
    """
    wanted = max(1, subspace.shape[1] - OVERSAMPLING)
    before = np.zeros(wanted)
    for iteration in range(most):
        _, values, right = np.linalg.svd(rows.factors(subspace).factor, full_matrices=False)
        moved = np.abs(values[:wanted] - before).max()
        if iteration >= POWER_ITERATIONS and moved <= _SETTLED * values[0]:
            break
        before = values[:wanted]
        # Directions that X maps to nothing stay in the basis, as the noise they are.
        floor = max(rows.width, len(values)) * np.finfo(np.float64).eps * values[0]
        inverse = 1.0 / np.maximum(values, floor if floor > 0 else 1.0)
        orthonormal = subspace @ (right.T * inverse)
        subspace = np.asarray(np.linalg.qr(rows.scatter_times(orthonormal)).Q)
    return subspace


def _rayleigh_ritz(rows: Rows, subspace: Array) -> Spectrum:
    """Spectrum of X^T X seen within a subspace."""
    within = singular_spectrum(rows.factors(subspace).factor)
    components = within.components @ subspace.T
    peaks = np.argmax(np.abs(components), axis=1)
    signs = np.where(components[np.arange(len(components)), peaks] < 0, -1.0, 1.0)
    return Spectrum(within.eigenvalues, components * signs[:, None])


def _first(spectrum: Spectrum, count: int) -> Spectrum:
    return Spectrum(spectrum.eigenvalues[:count], spectrum.components[:count])
