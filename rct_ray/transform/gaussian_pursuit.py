"""Where to start from: Gaussians picked one by one, each the one that most is left to explain by.

Orthogonal matching pursuit (Pati, Rezaiifar & Krishnaprasad 1993) over every place and a ladder of widths.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array
from rct_ray.transform.projected_gaussians import inverse_gram

Single: TypeAlias = NDArray[np.float32]

_NARROWEST, _LADDER = 0.4, 1.8
# Numbers of one group of rows' correlations with all candidates.
_CELLS = 1 << 18


def pursue(rows: Array, n_components: int, xp: Any = np) -> tuple[Array, Array]:
    """Pick K Gaussians for each row, greedily.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
    n_components : int
    xp : module, default numpy
        Or CuPy.

    Returns
    -------
    centres, log_widths : ndarray of shape (n, K), float64
    """
    shape = (len(rows), n_components)
    centres, log_widths = xp.zeros(shape), xp.zeros(shape)
    for part in _groups(rows):
        left = rows[part]
        for k in range(n_components):
            centres[part, k], log_widths[part, k] = _best(left, xp)
            here = _sampled(centres[part, : k + 1], log_widths[part, : k + 1], rows.shape[1], xp)
            amplitudes = inverse_gram(here @ here.swapaxes(1, 2), xp) @ (here @ rows[part, :, None])
            left = rows[part] - (amplitudes.swapaxes(1, 2) @ here)[:, 0]
    return centres, log_widths


def relocate(
    rows: Array, centres: Array, log_widths: Array, rank: int = 0, xp: Any = np
) -> tuple[Array, Array]:
    """Take from each row the Gaussian that it would miss least, and pick another for what is then left.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
    centres, log_widths : ndarray of shape (n, K), float64
        Not changed.
    rank : int, default 0
        Take the Gaussian that comes so many places after the one missed least.
    xp : module, default numpy
        Or CuPy.

    Returns
    -------
    centres, log_widths : ndarray of shape (n, K), float64
    """
    centres, log_widths = xp.array(centres), xp.array(log_widths)
    for part in _groups(rows):
        here = _sampled(centres[part], log_widths[part], rows.shape[1], xp)
        inverse = inverse_gram(here @ here.swapaxes(1, 2), xp)
        amplitudes = (inverse @ (here @ rows[part, :, None]))[:, :, 0]
        worth = xp.einsum("nkk->nk", inverse)
        least = xp.argsort(amplitudes**2 / worth, axis=1)[:, rank]
        row = xp.arange(len(least))
        # The others' amplitudes without it: the least-squares fit whose amplitude there is zero.
        amplitudes -= inverse[row, least] * (amplitudes[row, least] / worth[row, least])[:, None]
        left = rows[part] - (amplitudes[:, None, :] @ here)[:, 0]
        centres[part][row, least], log_widths[part][row, least] = _best(left, xp)
    return centres, log_widths


def _best(left: Array, xp: Any) -> tuple[Array, Array]:
    """Centre and log-width of the one candidate that explains most of each row."""
    n, d = left.shape
    widths, kernels, norms = (xp.asarray(part) for part in _candidates(d))
    # In single precision: it is a choice, not a figure.
    spectrum = xp.fft.rfft(left.astype(np.float32), 2 * d)
    found = xp.fft.irfft(spectrum[:, None, :] * kernels, 2 * d)[:, :, :d] * norms
    best = xp.argmax(xp.abs(found.reshape(n, -1)), axis=1)
    return best % d, xp.log(widths)[best // d]


def _sampled(centres: Array, log_widths: Array, width: int, xp: Any) -> Array:
    u = (xp.arange(width) - centres[:, :, None]) * xp.exp(-log_widths)[:, :, None]
    return xp.exp(-0.5 * u**2)  # type: ignore[no-any-return]


def _groups(rows: Array) -> list[slice]:
    """Rows that are handled together, so that all candidates' products with them fit."""
    width = rows.shape[1]
    size = max(1, _CELLS // (2 * width * len(_candidates(width)[0])))
    return [slice(first, first + size) for first in range(0, len(rows), size)]


@lru_cache(maxsize=8)
def _candidates(width: int) -> tuple[Array, Single, Single]:
    """Widths; transforms of the Gaussians on a circle of 2 d places; one over the norms of what d of them show."""
    steps = 1 + max(0, int(np.log(width / _NARROWEST) / np.log(_LADDER)))
    widths = np.asarray(_NARROWEST * _LADDER ** np.arange(steps), dtype=np.float64)
    away = np.minimum(np.arange(2 * width), 2 * width - np.arange(2 * width))
    bells = np.exp(-0.5 * (away / widths[:, None]) ** 2)
    squares = np.cumsum(bells[:, :width] ** 2, axis=1)
    # Seen from place c: c places to the left and d - 1 - c to the right, the middle one counted once.
    norms = np.sqrt(squares + squares[:, ::-1] - 1)
    kernels = np.fft.rfft(bells)
    return widths, kernels.real.astype(np.float32), (1 / norms).astype(np.float32)
