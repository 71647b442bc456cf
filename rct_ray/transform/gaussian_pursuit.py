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
    width = rows.shape[1]
    widths, kernels, norms = (xp.asarray(part) for part in _candidates(width))
    group = max(1, _CELLS // (2 * width * len(widths)))
    parts = [
        _pursued(rows[first : first + group], n_components, widths, kernels, norms, xp)
        for first in range(0, len(rows), group)
    ]
    centres, log_widths = (xp.concatenate(part) for part in zip(*parts, strict=True))
    return centres, log_widths


def _pursued(
    rows: Array, n_components: int, widths: Array, kernels: Single, norms: Single, xp: Any
) -> tuple[Array, Array]:
    n, d = rows.shape
    centres, chosen = xp.zeros((n, n_components)), xp.ones((n, n_components))
    gaussians = xp.zeros((n, n_components, d))
    left = rows
    for k in range(n_components):
        # In single precision: it is a choice, not a figure.
        spectrum = xp.fft.rfft(left.astype(np.float32), 2 * d)
        found = xp.fft.irfft(spectrum[:, None, :] * kernels, 2 * d)[:, :, :d] * norms
        best = xp.argmax(xp.abs(found.reshape(n, -1)), axis=1)
        centres[:, k], chosen[:, k] = best % d, widths[best // d]
        u = (xp.arange(d) - centres[:, k, None]) / chosen[:, k, None]
        gaussians[:, k] = xp.exp(-0.5 * u**2)
        here = gaussians[:, : k + 1]
        amplitudes = inverse_gram(here @ here.swapaxes(1, 2), xp) @ (here @ rows[:, :, None])
        left = rows - (amplitudes.swapaxes(1, 2) @ here)[:, 0]
    return centres, xp.log(chosen)


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
