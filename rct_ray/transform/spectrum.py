"""Eigenvalues of a scatter: principal components, participation ratio, how many components a share needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rct_ray.transform.basis import Array


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigendecomposition of a scatter matrix.

    Attributes
    ----------
    eigenvalues : ndarray of shape (m,), float64
        Descending, never negative.
    components : ndarray of shape (m, m), float64
        Unit eigenvectors as rows; the largest-magnitude entry of each is positive, so that signs are stable.
    """

    eigenvalues: Array
    components: Array


def eigendecomposition(scatter: Array) -> Spectrum:
    """Spectrum of a symmetric positive semidefinite matrix, shape (m, m), by LAPACK's divide and conquer."""
    values, vectors = np.linalg.eigh(scatter)
    components = np.ascontiguousarray(vectors.T[::-1])
    peaks = np.argmax(np.abs(components), axis=1)
    signs = np.where(components[np.arange(len(components)), peaks] < 0, -1.0, 1.0)
    return Spectrum(np.maximum(values[::-1], 0.0), components * signs[:, None])


def participation_ratio(scatter: Array) -> float | None:
    """(sum lambda)^2 / sum lambda^2 over the eigenvalues of a scatter; None if it is zero.

    Needs no eigenvalues: the sum is the trace, the sum of squares the squared Frobenius norm. (Not
    WeightWatcher's participation ratio, which is of the entries of one eigenvector.)
    """
    total = float(np.trace(scatter))
    if not total > 0:
        return None
    shares = scatter / total
    return 1.0 / float(np.vdot(shares, shares))


def components_needed(eigenvalues: Array, threshold: float) -> int:
    """Fewest leading eigenvalues whose sum reaches `threshold` of the total; at least one.

    Eigenvalues too small to change the running sum in float64 never count as needed, so threshold 1
    keeps the numerical rank.
    """
    running = np.cumsum(eigenvalues)
    return int(np.searchsorted(running, threshold * running[-1])) + 1 if running[-1] > 0 else 1
