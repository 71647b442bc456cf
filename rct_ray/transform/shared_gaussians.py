"""Gaussians whose centres and widths all rows of a matrix share, fitted on moments alone.

With H = W^T W the sum over the rows of all that `projected_gaussians` needs of one row is a product of small
matrices, so that the same search runs here, at a cost that does not grow with the number of rows.
"""

from __future__ import annotations

import numpy as np

from rct_ray.transform.basis import Array, gaussians_at
from rct_ray.transform.free_gaussians import parameter_bounds
from rct_ray.transform.levenberg_marquardt import Slopes, minimise
from rct_ray.transform.projected_gaussians import inverse_gram, powers_at, reach_of

# Widths to start from beside those given, as multiples of them.
_OTHER_WIDTHS = (0.5, 2.0)


def fit_shared(
    second_moment: Array,
    n_components: int,
    *,
    start: tuple[Array, Array] | None = None,
    relative_width: float = 1.0,
    max_iterations: int = 100,
    tolerance: float = 1e-8,
) -> tuple[Array, Array]:
    """Find the K centres and widths that keep most of the energy tr(Q^T H Q), never less than the start keeps.

    Q is the orthonormal frame of the Gaussians. Centres and widths have the bounds of
    `free_gaussians.parameter_bounds`; a start outside them is kept if nothing within them is better.

    Parameters
    ----------
    second_moment : ndarray of shape (d, d), float64
        H = W^T W, the columns in the order that the Gaussians lie along.
    n_components : int
        K <= d.
    start : (centres, widths), optional
        Of shape (K,) each; by default linspace(0, d-1, K) and relative_width * d / K.
    relative_width : float, default 1.0
    max_iterations : int
        Steps to try from each start.
    tolerance : float
        It ends when a step neither promises nor gains more than this share of the energy lost.

    Returns
    -------
    centres, widths : ndarray of shape (K,), float64
        By increasing centre.
    """
    d = len(second_moment)
    if start is None:
        start = (
            np.linspace(0.0, d - 1.0, n_components),
            np.full(n_components, relative_width * d / n_components),
        )
    energy = float(np.trace(second_moment))
    best = np.asarray(start[0], np.float64), np.asarray(start[1], np.float64)
    if energy > 0:
        unit = second_moment / energy
        firsts = np.stack([np.r_[best[0], np.log(best[1] * factor)] for factor in (1.0, *_OTHER_WIDTHS)])
        found = minimise(
            lambda index, at: Slopes.joined([measure_moments(unit, *np.split(one, 2)) for one in at]),
            firsts,
            *parameter_bounds(d, n_components),
            max_iterations=max_iterations,
            tolerance=tolerance,
        )
        centres, log_widths = np.split(found.parameters[np.argmin(found.slopes.sse)], 2)
        if energy_kept(unit, centres, np.exp(log_widths)) > energy_kept(unit, *best):
            best = centres, np.exp(log_widths)
    order = np.argsort(best[0], kind="stable")
    return best[0][order], best[1][order]


def energy_kept(second_moment: Array, centres: Array, widths: Array) -> float:
    """tr(Q^T H Q) with Q the orthonormal frame of the Gaussians, by QR."""
    frame = np.linalg.qr(gaussians_at(len(second_moment), centres, widths).T)[0]
    return float(np.sum(frame * (second_moment @ frame)))


def measure_moments(second_moment: Array, centres: Array, log_widths: Array) -> Slopes:
    """Energy that the best amplitudes of all rows together lose, and how it changes; one problem.

    Parameters
    ----------
    second_moment : ndarray of shape (d, d), float64
        Of trace about one.
    centres, log_widths : ndarray of shape (K,), float64

    Returns
    -------
    Slopes
        By (centres, log-widths); its amplitudes are the energies of the K amplitudes.
    """
    K = len(centres)
    powers = powers_at(centres[None], log_widths[None], len(second_moment))[0]
    scale = np.exp(-log_widths)
    g = powers[0]
    # Derivatives of the Gaussians by centres, then by log-widths.
    slopes = np.concatenate([powers[1] * scale[:, None], powers[2]])
    inverse = inverse_gram((g @ g.T)[None])[0]
    amplitudes_rows = inverse @ (g @ second_moment)
    amplitudes = amplitudes_rows @ g.T @ inverse
    amplitudes_left = amplitudes_rows - amplitudes @ g
    sse = np.trace(second_moment) - np.sum(amplitudes_rows * g)

    owner = np.tile(np.arange(K), 2)
    weights = amplitudes[owner[:, None], owner]
    onto = slopes @ g.T @ inverse
    aside = slopes - onto @ g
    gauss_newton = weights * (aside @ slopes.T)
    # What the amplitudes' own answer to the residual adds (the Schur complement, summed over the rows).
    answer = onto[:, owner] * (amplitudes_left @ slopes.T)[owner]
    newton = gauss_newton + answer + answer.T
    newton -= (aside @ second_moment @ aside.T) * inverse[owner[:, None], owner]
    m = np.einsum("kd,pkd->pk", amplitudes_left, powers)
    k = np.arange(K)
    newton[k, k] -= scale**2 * (m[2] - m[0])
    newton[k, K + k] -= scale * (m[3] - 2 * m[1])
    newton[K + k, k] -= scale * (m[3] - 2 * m[1])
    newton[K + k, K + k] -= m[4] - 2 * m[2]
    descent = np.concatenate([scale * m[1], m[2]])
    parts = (np.asarray([sse]), np.diag(amplitudes)[None], descent[None], gauss_newton[None], newton[None])
    return Slopes(*parts, reach_of(scale[None]))
