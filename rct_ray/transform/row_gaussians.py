"""Gaussians along the rows of a code: each of its columns as one signal over all rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array, BasisError
from rct_ray.transform.spectrum import eigendecomposition

# Widths after which a Gaussian is below the last digit of a float64.
_REACH = 9.0
# Beyond this width, in units of the distance between centres, neighbours are too alike to be told apart.
_WIDEST = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class RowGaussians:
    """K Gaussians on n rows, orthonormalised; sparse, because each reaches few rows.

    Attributes
    ----------
    functions : scipy.sparse.csr_array of shape (K, n)
        G: centres linspace(0, n-1, K), sigma = relative_width * n / K.
    factor : ndarray
        Lower Cholesky factor of G G^T in LAPACK's band storage.
    """

    functions: Any
    factor: Array

    def encode(self, codes: Array) -> Array:
        """Coordinates of the columns in the orthonormal basis L^-1 G, shape (n, m) -> (K, m)."""
        return self._solve(np.asarray(self.functions @ codes), "N")

    def decode(self, coordinates: Array) -> Array:
        """Columns of coordinates, shape (K, m) -> (n, m)."""
        return np.asarray(self.functions.T @ self._solve(coordinates, "T"))

    def _solve(self, right: Array, trans: str) -> Array:
        from scipy.linalg.lapack import dtbtrs

        solved, info = dtbtrs(self.factor, right, uplo="L", trans=trans)
        if info:
            raise BasisError("the Gaussians along the rows are nearly dependent: use a smaller width")
        return np.asarray(solved)


def row_gaussians(rows: int, n_components: int, relative_width: float = 1.0) -> RowGaussians:
    """Gaussians of fixed centres and width along `rows` rows.

    Raises
    ------
    BasisError
        If there are more of them than rows, or if they are too wide to be told apart.
    """
    from scipy.linalg import cholesky_banded
    from scipy.sparse import csr_array

    if n_components > rows:
        raise BasisError(
            f"{n_components} Gaussians along {rows} rows: K must not exceed the rows; lower K along the rows"
        )
    if relative_width > _WIDEST:
        raise BasisError(
            f"Gaussians along the rows of width {relative_width:g} (in units of rows/K) are nearly dependent; "
            f"the width may be at most {_WIDEST}"
        )
    centres = np.linspace(0.0, rows - 1.0, n_components)
    sigma = relative_width * rows / n_components
    starts = np.maximum(0, np.floor(centres - _REACH * sigma)).astype(np.int64)
    stops = np.minimum(rows, np.ceil(centres + _REACH * sigma) + 1).astype(np.int64)
    places = np.concatenate([np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)])
    counts = stops - starts
    heights = np.exp(-0.5 * ((places - np.repeat(centres, counts)) / sigma) ** 2)
    functions = csr_array((heights, places, np.concatenate([[0], np.cumsum(counts)])), (n_components, rows))
    gram = functions @ functions.T
    diagonals = min(
        n_components, math.ceil(2 * _REACH * sigma / max(centres[-1] / max(n_components - 1, 1), 1e-9)) + 1
    )
    band = np.zeros((diagonals, n_components))
    for below in range(diagonals):
        band[below, : n_components - below] = gram.diagonal(-below)
    try:
        factor = cholesky_banded(band, lower=True)
    except np.linalg.LinAlgError:
        raise BasisError(
            f"{n_components} Gaussians along {rows} rows are nearly dependent: use a smaller width"
        ) from None
    return RowGaussians(functions, factor)


def order_of_rows(codes: Array) -> NDArray[np.int64]:
    """Rows by their first principal coordinate (about zero), lowest first, shape (n,).

    The first left singular vector of the codes, up to scale. Naming an order costs log2(n!) bits.
    """
    first = eigendecomposition(codes.T @ codes).components[0]
    return np.argsort(codes @ first, kind="stable")
