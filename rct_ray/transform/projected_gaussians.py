"""Rows against Gaussians of any centres and widths, amplitudes eliminated (variable projection).

w_j = sum_k A_k exp(-(j - c_k)^2 / (2 s_k^2)): for given c and s the best A are linear in w, so that only c and
s are searched (Golub & Pereyra 1973; Kaufman 1975). Parameters of a row are its K centres, then the K logarithms
of its widths.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.levenberg_marquardt import Slopes

# Added to the unit diagonal of the Gaussians' Gram matrix, so that coinciding ones share their amplitude.
_RIDGE = 1e-13
# Sum of squares of a Gaussian that is as good as zero at every place.
_GONE = 1e-20
# Samples of the Gaussians of one group of rows: with all powers a few megabytes, which stay in cache.
CELLS = 1 << 16
# A centre moves by two widths at once at most, and a width by a factor e.
_CENTRE_REACH = 2.0
# g, g u, ... g u^4 with u = (j - c) / s: all that first and second derivatives are made of.
_POWERS = 5


def powers_at(centres: Array, log_widths: Array, width: int, xp: Any = np) -> Array:
    """Sample g u^p, p = 0..4, of every Gaussian g on places 0..d-1.

    Returns
    -------
    ndarray of shape (n, 5, K, d), float64
    """
    scale = xp.exp(-log_widths)
    u = xp.arange(width, dtype=np.float64) * scale[..., None]
    u -= (centres * scale)[..., None]
    powers = xp.empty((len(centres), _POWERS, *u.shape[1:]))
    xp.multiply(u, u, out=powers[:, 0])
    powers[:, 0] *= -0.5
    xp.exp(powers[:, 0], out=powers[:, 0])
    for p in range(1, _POWERS):
        xp.multiply(powers[:, p - 1], u, out=powers[:, p])
    return powers  # type: ignore[no-any-return]


def inverse_gram(gram: Array, xp: Any = np) -> Array:
    """Inverse of the Gaussians' Gram matrix, with a ridge far below rounding of what it can tell apart."""
    diagonal = xp.einsum("nkk->nk", gram)
    # One that has left the places altogether is beside a one on the diagonal, so that its amplitude is nothing.
    gone = diagonal < _GONE
    norms = xp.sqrt(xp.where(gone, 1.0, diagonal))
    outer = norms[:, :, None] * norms[:, None, :]
    unit = gram / outer + (_RIDGE + gone)[:, :, None] * xp.eye(gram.shape[1])
    return xp.linalg.inv(unit) / outer  # type: ignore[no-any-return]


def measure_rows(rows: Array, centres: Array, log_widths: Array, xp: Any = np) -> Slopes:
    """Best amplitudes of each row, what is left of it, and how that changes with centres and log-widths.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
        Of energy about one.
    centres, log_widths : ndarray of shape (n, K), float64

    Returns
    -------
    Slopes
        By (centres, log-widths), m = 2 K.
    """
    n, K = centres.shape
    powers = powers_at(centres, log_widths, rows.shape[1], xp)
    flat = powers.reshape(n, _POWERS * K, -1)
    gaussians = flat[:, :K]
    # Every product of functions and first derivatives at once: the bulk of the work beside the exponentials.
    products = flat[:, : 3 * K] @ flat[:, : 3 * K].swapaxes(1, 2)
    inverse = inverse_gram(products[:, :K, :K], xp)
    onto = gaussians @ rows[:, :, None]
    amplitudes = inverse @ onto
    amplitudes += inverse @ (onto - products[:, :K, :K] @ amplitudes)
    left = rows - (amplitudes.swapaxes(1, 2) @ gaussians)[:, 0]
    m = (flat @ left[:, :, None]).reshape(n, _POWERS, K)
    return _slopes(products, inverse, amplitudes[:, :, 0], xp.exp(-log_widths), m, left, xp)


def _slopes(
    products: Array, inverse: Array, a: Array, scale: Array, m: Array, left: Array, xp: Any
) -> Slopes:
    """Put slopes together; m[p] are the products of what is left with g u^p.

    dg/dc = g u / s and dg/dlog s = g u^2; amplitudes answer through the Gram matrix (Schur complement).
    """
    K = a.shape[1]
    k = xp.arange(K)
    per_c = a * scale
    weights = xp.concatenate([per_c, a], axis=1)
    inner = weights[:, :, None] * products[:, K:, K:] * weights[:, None, :]
    cross = weights[:, :, None] * products[:, K:, :K]
    gauss_newton = inner - cross @ inverse @ cross.swapaxes(1, 2)
    cross[:, k, k] -= m[:, 1] * scale
    cross[:, K + k, k] -= m[:, 2]
    newton = inner - cross @ inverse @ cross.swapaxes(1, 2)
    newton[:, k, k] -= per_c * scale * (m[:, 2] - m[:, 0])
    mixed = per_c * (m[:, 3] - 2 * m[:, 1])
    newton[:, k, K + k] -= mixed
    newton[:, K + k, k] -= mixed
    newton[:, K + k, K + k] -= a * (m[:, 4] - 2 * m[:, 2])
    descent = xp.concatenate([per_c * m[:, 1], a * m[:, 2]], axis=1)
    return Slopes(xp.einsum("nd,nd->n", left, left), a, descent, gauss_newton, newton, reach_of(scale, xp))


def reach_of(scale: Array, xp: Any = np) -> Array:
    """The farthest that parameters should go at once, from one over the widths, shape (n, K)."""
    return xp.concatenate([_CENTRE_REACH / scale, xp.ones_like(scale)], axis=1)  # type: ignore[no-any-return]
