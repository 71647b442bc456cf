"""Triangular factors of rows: moments without squaring, so that small directions survive.

A scatter X^T X squares the condition number; its factor R, from X = Q R, does not. Blocks are factored apart
and merged two by two, which is TSQR (Demmel, Grigori, Hoemmen & Langou, 2008) without ever keeping Q. Each
block is centred about its own mean, and a merge adds one row for the distance between the means: the update
of Chan, Golub & LeVeque (1979) before it is squared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array
from rct_ray.transform.moments import CoordinateMoments
from rct_ray.transform.spectrum import Spectrum

# Rows converted to float64 and centred at a time: what fits in a core's second-level cache beside its result,
# but enough of them that the K x K update does not dominate.
_CHUNK_ENTRIES = 1 << 18
_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class CoordinateFactors:
    """Moments of rows in some coordinates, as a factor: `moments.CoordinateMoments` that was never squared.

    Attributes
    ----------
    rows : int
    mean : ndarray of shape (m,), float64
    factor : ndarray of shape (r, m), float64
        R: upper triangular, diagonal >= 0; R^T R is the scatter. r = m once there are m rows or more; of
        fewer rows R is a trapezoid, which is not padded.
    """

    rows: int
    mean: Array
    factor: Array

    @property
    def scatter(self) -> Array:
        """Sum over rows of (x - mean)^T (x - mean)."""
        return np.asarray(self.factor.T @ self.factor)

    @property
    def energy(self) -> float:
        """Sum of squares of all coordinates, about zero."""
        return float(np.vdot(self.factor, self.factor) + self.rows * (self.mean @ self.mean))

    @property
    def second_moment(self) -> Array:
        """X^T X, about zero."""
        return np.asarray(self.scatter + self.rows * np.outer(self.mean, self.mean))

    def squares_of(self, linear: Array) -> float:
        """Sum of squares of the centred rows times `linear`, shape (m, n): |R L|^2."""
        image = self.factor @ linear
        return float(np.vdot(image, image))

    def spectrum(self) -> Spectrum:
        """Eigenvalues and eigenvectors of the scatter, from the singular values of R."""
        return singular_spectrum(self.factor, full=True)

    def spectrum_about_zero(self) -> Spectrum:
        """Eigenvalues and eigenvectors of X^T X."""
        about_zero = np.vstack([self.factor, math.sqrt(self.rows) * self.mean])
        return singular_spectrum(about_zero, full=True)

    def merge(self, other: CoordinateFactors) -> CoordinateFactors:
        """Factors of both sets of rows together; either may be empty."""
        if not self.rows or not other.rows:
            return self if self.rows else other
        rows = self.rows + other.rows
        shift = other.mean - self.mean
        between = math.sqrt(self.rows * other.rows / rows) * shift
        factor = triangular_factor(np.vstack([self.factor, other.factor, between]))
        return CoordinateFactors(rows, self.mean + shift * (other.rows / rows), factor)

    def mapped(self, linear: Array) -> CoordinateFactors:
        """Factors of X @ linear."""
        return CoordinateFactors(self.rows, self.mean @ linear, triangular_factor(self.factor @ linear))


def triangular_factor(rows: Array) -> Array:
    """R of a thin QR of shape (n, m): min(n, m) rows, diagonal >= 0, so that it is unique where full rank."""
    factor: Array = np.asarray(np.linalg.qr(rows, mode="r"))
    return factor * np.where(np.diagonal(factor) < 0, -1.0, 1.0)[:, None]


def singular_spectrum(factor: Array, *, full: bool = False) -> Spectrum:
    """Spectrum of R^T R without forming it.

    Parameters
    ----------
    factor : ndarray of shape (n, m), float64
    full : bool
        All m eigenvectors, also those that fewer rows than columns cannot reach; otherwise min(n, m).

    Returns
    -------
    Spectrum
        Eigenvalues are squares of singular values, so their roots are accurate to the rounding of the largest
        singular value, where an eigendecomposition would stop at its square root.
    """
    _, values, components = np.linalg.svd(factor, full_matrices=full)
    eigenvalues = np.zeros(len(components))
    eigenvalues[: len(values)] = values**2
    peaks = np.argmax(np.abs(components), axis=1)
    signs = np.where(components[np.arange(len(components)), peaks] < 0, -1.0, 1.0)
    return Spectrum(eigenvalues, components * signs[:, None])


def coordinate_factors(
    block: NDArray[np.floating[Any]], origin: Array | None = None, basis: Array | None = None
) -> CoordinateFactors:
    """Factors of a block of rows, in float64.

    Parameters
    ----------
    block : ndarray of shape (n, K)
        Any number of rows, none and fewer than columns included.
    origin : ndarray of shape (K,), optional
        Taken off every row first: the factors are then of block - origin. Blocks that share an origin near
        their common mean lose nothing to it when merged, however far from zero it is.
    basis : ndarray of shape (K, m), optional
        Factors of (block - origin) @ basis.
    """
    start = _head_mean(block) if origin is None else origin
    width = block.shape[1] if basis is None else basis.shape[1]
    whole = CoordinateFactors(0, np.zeros(width), np.zeros((0, width)))
    for chunk in shifted_chunks(block, start, max(_CHUNK_ROWS, 2 * width)):
        whole = _with_rows(whole, chunk if basis is None else chunk @ basis)
    if origin is not None:
        return whole
    back = start if basis is None else start @ basis
    return CoordinateFactors(whole.rows, whole.mean + back, whole.factor)


def block_moments(block: NDArray[np.floating[Any]], origin: Array | None = None) -> CoordinateMoments:
    """Moments of a block of rows in float64, one pass, no float64 copy of the block.

    The corrected two-pass sum of Chan, Golub & LeVeque with a guess for the first pass: squares about the
    origin, less what the distance of the mean from it adds.

    Parameters
    ----------
    block : ndarray of shape (n, K)
        Any number of rows, none included.
    origin : ndarray of shape (K,), optional
        As for `coordinate_factors`: the moments are then of block - origin.
    """
    start = _head_mean(block) if origin is None else origin
    width = block.shape[1]
    total, scatter = np.zeros(width), np.zeros((width, width))
    for chunk in shifted_chunks(block, start, max(_CHUNK_ROWS, _CHUNK_ENTRIES // max(width, 1))):
        total += np.ones(len(chunk)) @ chunk
        scatter += chunk.T @ chunk
    mean = total / max(len(block), 1)
    scatter -= len(block) * np.outer(mean, mean)
    return CoordinateMoments(len(block), mean + start if origin is None else mean, scatter)


def shifted_chunks(block: NDArray[np.floating[Any]], origin: Array, rows: int) -> Iterator[Array]:
    """Some rows of a block at a time, in float64 and less the origin; the buffer is used again."""
    buffer = np.empty((min(rows, len(block)), block.shape[1]))
    for start in range(0, len(block), rows):
        part = block[start : start + rows]
        chunk = buffer[: len(part)]
        np.copyto(chunk, part)
        chunk -= origin
        yield chunk


class _Mergeable(Protocol):
    @property
    def rows(self) -> int: ...

    def merge(self, other: Self, /) -> Self: ...


_M = TypeVar("_M", bound=_Mergeable)


class MergeTree(Generic[_M]):
    """Merges items two by two in a binary tree that the number of items alone decides.

    Items may be added in any order; what can be merged is merged at once, so items added nearly in order
    leave about log2(count) of them in memory.

    Parameters
    ----------
    count : int
        Items to come.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._waiting: dict[tuple[int, int], _M] = {}

    def add(self, index: int, item: _M) -> None:
        """Put item number `index` in its place, and merge as far up as its neighbours allow."""
        level, width = 0, self.count
        while width > 1:
            neighbour = index ^ 1
            if neighbour < width:
                if (level, neighbour) not in self._waiting:
                    break
                other = self._waiting.pop((level, neighbour))
                item = _merged(item, other) if index < neighbour else _merged(other, item)
            index, level, width = index // 2, level + 1, (width + 1) // 2
        self._waiting[level, index] = item

    def result(self) -> _M:
        """All items merged.

        Raises
        ------
        ValueError
            If there were none, or some are missing.
        """
        if self.count < 1 or len(self._waiting) != 1 or next(iter(self._waiting))[0] != self._height:
            raise ValueError(f"not all of {self.count} items are there to merge")
        return next(iter(self._waiting.values()))

    @property
    def _height(self) -> int:
        return (self.count - 1).bit_length()


def merge_tree(items: Sequence[_M]) -> _M:
    """Merge a sequence, at least one item, in a fixed binary tree by index."""
    tree: MergeTree[_M] = MergeTree(len(items))
    for index, item in enumerate(items):
        tree.add(index, item)
    return tree.result()


def _merged(left: _M, right: _M) -> _M:
    if left.rows and right.rows:
        return left.merge(right)
    return left if left.rows else right


def _with_rows(whole: CoordinateFactors, chunk: Array) -> CoordinateFactors:
    """Take in a chunk of rows by one QR: [R; chunk - mean; step between the means]."""
    mean = np.ones(len(chunk)) @ chunk / len(chunk)
    above, rows = len(whole.factor), whole.rows + len(chunk)
    stacked = np.empty((above + len(chunk) + 1, chunk.shape[1]))
    stacked[:above] = whole.factor
    np.subtract(chunk, mean, out=stacked[above:-1])
    shift = mean - whole.mean
    stacked[-1] = math.sqrt(whole.rows * len(chunk) / rows) * shift
    factor = triangular_factor(stacked if whole.rows else stacked[:-1])
    return CoordinateFactors(rows, whole.mean + shift * (len(chunk) / rows), factor)


def _head_mean(block: NDArray[np.floating[Any]]) -> Array:
    """Mean of the first rows: near enough to take as origin."""
    head = block[:_CHUNK_ROWS].astype(np.float64)
    return np.asarray(head.mean(axis=0)) if len(head) else np.zeros(block.shape[1])
