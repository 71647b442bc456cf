"""Free Gaussians the seed's way: scipy's `curve_fit`, row by row.

Slow, unbounded, and apt to give up. The seed's papers do not say what they start from, how many calls they
allow, or what becomes of a row whose fit raises; here such a row keeps what it started from.
"""

from __future__ import annotations

from warnings import catch_warnings

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.free_gaussians import FreeFit, Start, amplitudes_at, decode_gaussians


def fit_curve_fit(
    rows: Array,
    n_components: int,
    *,
    maxfev: int | None = None,
    start: Start | None = None,
    amplitudes: Array | None = None,
) -> FreeFit:
    """Fit each row with K Gaussians by `scipy.optimize.curve_fit`; a row that it fails on is not converged.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
    n_components : int
        K; with 3 K > d no row can be fitted.
    maxfev : int, optional
        Calls of the model that a row may take; by default scipy's 200 (3 K + 1).
    start : (centres, widths), optional
        By default the fixed basis: linspace(0, d-1, K) and d / K.
    amplitudes : ndarray of shape (n, K), optional
        To start from; by default those of least squares at the centres and widths of the start.

    Returns
    -------
    FreeFit
        `iterations` counts calls of the model. Rows that are not converged keep their start.
    """
    rows = np.asarray(rows, dtype=np.float64)
    width = rows.shape[1]
    if start is None:
        start = np.linspace(0.0, width - 1.0, n_components), np.full(n_components, width / n_components)
    centres, widths = (np.broadcast_to(part, (len(rows), n_components)) for part in start)
    if amplitudes is None:
        amplitudes = amplitudes_at(rows, centres, widths)
    calls = 200 * (3 * n_components + 1) if maxfev is None else maxfev
    fitted = np.stack([amplitudes, centres, widths], axis=1)
    converged, taken = np.zeros(len(rows), dtype=bool), np.full(len(rows), calls)
    for number, row in enumerate(rows):
        found = _curve_fit(row, fitted[number].ravel(), calls)
        if found is not None:
            converged[number] = True
            fitted[number], taken[number] = found[0].reshape(3, -1), found[1]
    amplitudes, centres, widths = fitted[:, 0], fitted[:, 1], np.abs(fitted[:, 2])
    with np.errstate(over="ignore"):
        sse = np.sum((rows - decode_gaussians(amplitudes, centres, widths, width)) ** 2, axis=1)
    return FreeFit(amplitudes, centres, widths, sse, converged, taken)


def _curve_fit(row: Array, first: Array, calls: int) -> tuple[Array, int] | None:
    """Parameters and calls, or nothing if it fails."""
    from scipy.optimize import curve_fit

    try:
        # Of covariances that nobody asked for, and of widths that pass through zero.
        with catch_warnings(action="ignore"), np.errstate(all="ignore"):
            places = np.arange(len(row), dtype=np.float64)
            found, _, details, _, _ = curve_fit(_model, places, row, p0=first, maxfev=calls, full_output=True)
            sound = bool(np.all(np.isfinite(_model(places, *found))))
    except (RuntimeError, TypeError, ValueError):
        # Too many calls; more parameters than places; squares that overflow.
        return None
    return (np.asarray(found), int(details["nfev"])) if sound else None


def _model(places: Array, *parameters: float) -> Array:
    amplitudes, centres, widths = np.split(np.asarray(parameters), 3)
    return np.asarray(amplitudes @ np.exp(-0.5 * ((places - centres[:, None]) / widths[:, None]) ** 2))
