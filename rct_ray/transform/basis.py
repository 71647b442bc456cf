"""Fixed bases of row space: Gaussians, cosines and Haar steps, each as an orthonormal frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

# Beyond this condition number amplitudes carry fewer than four decimal digits of a float64 weight.
_WORST_CONDITION = 1e12


class BasisError(ValueError):
    """A basis that can't be had as asked for; one line."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """A basis of K functions on d columns, beside its orthonormal frame.

    Attributes
    ----------
    frame : ndarray of shape (d, K), float64
        Q: orthonormal columns with the span of the functions. Isometric amplitudes are B = W Q.
    mixing : ndarray of shape (K, K), float64
        R, upper triangular with positive diagonal. The functions are the rows of G = R^T Q^T, so
        least-squares amplitudes are A = W G^+ = B R^-T.
    """

    frame: Array
    mixing: Array

    @property
    def functions(self) -> Array:
        """G, the K functions as rows, shape (K, d)."""
        return np.asarray((self.frame @ self.mixing).T)

    def unmixing(self) -> Array:
        """R^-T, the map from isometric to least-squares amplitudes.

        Raises
        ------
        BasisError
            If the functions are so nearly dependent that amplitudes are meaningless.
        """
        condition = np.linalg.cond(self.mixing)
        if not condition < _WORST_CONDITION:
            raise BasisError(
                f"the {len(self.mixing)} basis functions are nearly dependent (condition {condition:.1e}): "
                "amplitudes are meaningless; use a smaller width or the isometric metric"
            )
        return np.asarray(np.linalg.inv(self.mixing).T)


def default_components(width: int) -> int:
    """K = max(1, round(d / 32)), the seed's eight amplitudes for 256 columns."""
    return max(1, round(width / 32))


def orthonormalise(functions: Array) -> Basis:
    """Thin QR of the functions' transpose, with a positive diagonal so that it is unique.

    Parameters
    ----------
    functions : ndarray of shape (K, d), float64
        G, one function a row, K <= d.
    """
    frame, mixing = np.linalg.qr(functions.T)
    signs = np.where(np.diag(mixing) < 0, -1.0, 1.0)
    return Basis(np.ascontiguousarray(frame * signs), np.ascontiguousarray(mixing * signs[:, None]))


def gaussian_functions(width: int, n_components: int, relative_width: float = 1.0) -> Array:
    """Sample Gaussians on 0..d-1: centres linspace(0, d-1, K), sigma = relative_width * d / K.

    The row model of the seed: w_j = sum_k A_k exp(-(j - mu_k)^2 / (2 sigma^2)).

    Returns
    -------
    ndarray of shape (K, d), float64
    """
    centres = np.linspace(0.0, width - 1.0, n_components)
    return gaussians_at(width, centres, np.full(n_components, relative_width * width / n_components))


def gaussians_at(width: int, centres: Array, widths: Array) -> Array:
    """Sample Gaussians of given centres and widths (sigma) on 0..d-1, shape (K, d)."""
    places = np.arange(width, dtype=np.float64)
    return np.asarray(np.exp(-0.5 * ((places - centres[:, None]) / widths[:, None]) ** 2))


def gaussian_basis(width: int, n_components: int, relative_width: float = 1.0) -> Basis:
    """Gaussians of fixed centres and width (`gaussian_functions`) with their orthonormal frame."""
    return orthonormalise(gaussian_functions(width, n_components, relative_width))


def dct_basis(width: int, n_components: int) -> Basis:
    """Orthonormal DCT-II, the K lowest frequencies (Ahmed, Natarajan & Rao 1974)."""
    places = np.arange(width) + 0.5
    frequencies = np.arange(n_components)
    frame = np.cos(np.pi / width * np.outer(places, frequencies)) * np.sqrt(2.0 / width)
    frame[:, 0] = np.sqrt(1.0 / width)
    return Basis(frame, np.eye(n_components))


def haar_basis(width: int, n_components: int) -> Basis:
    """Haar steps, the K coarsest; any width (the unbalanced Haar transform halves odd intervals unevenly).

    Intervals are halved breadth first, longest first, so for a power of two these are the classic Haar
    wavelets by scale. An interval of left part l and right part r gives +sqrt(r/(l(l+r))) on the left and
    -sqrt(l/(r(l+r))) on the right.
    """
    frame = np.zeros((width, n_components))
    frame[:, 0] = np.sqrt(1.0 / width)
    for column, (start, middle, stop) in enumerate(_halvings(width, n_components - 1), start=1):
        left, right = middle - start, stop - middle
        frame[start:middle, column] = np.sqrt(right / (left * (left + right)))
        frame[middle:stop, column] = -np.sqrt(left / (right * (left + right)))
    return Basis(frame, np.eye(n_components))


def random_basis(width: int, n_components: int) -> Basis:
    """The first K of one random rotation of the columns, uniform over all rotations (Stewart 1980)."""
    directions = np.random.default_rng(width).standard_normal((n_components, width))
    return Basis(orthonormalise(directions).frame, np.eye(n_components))


def _halvings(width: int, count: int) -> list[tuple[int, int, int]]:
    intervals = [(0, width)]
    halved: list[tuple[int, int, int]] = []
    while len(halved) < count:
        finer = []
        # Longest first within a scale: a truncated basis never splits a short interval before a long one.
        for start, stop in sorted(intervals, key=lambda interval: (interval[0] - interval[1], interval[0])):
            if stop - start > 1:
                middle = (start + stop + 1) // 2
                halved.append((start, middle, stop))
                finer += [(start, middle), (middle, stop)]
        intervals = finer
    return halved[:count]
