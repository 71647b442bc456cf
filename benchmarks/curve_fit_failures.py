"""How fits that fail, and parameters that are averaged, make a negative R2; for information (docs/curve-fit.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks._sample import WIDTH, sample_rows
from rct_ray.transform.curve_fit import fit_curve_fit
from rct_ray.transform.free_gaussians import FreeFit, decode_gaussians, fit_free

Array = NDArray[np.float64]
K, ROWS = 8, 48
THRESHOLD = 0.95
# Calls a row: fewer than a fit needs; scipy's own default for 24 parameters; until nearly all converge.
FEW, USUAL, MANY = 1_000, 200 * (3 * K + 1), 100_000


def main() -> bool:
    W = sample_rows(ROWS)
    table = Table(
        title=f"{ROWS} rows of {WIDTH} weights, K={K}; failed rows keep their start; PCA at {THRESHOLD:g}",
        title_justify="left",
    )
    for column in ("fit", "amplitudes from", "sigma from"):
        table.add_column(column)
    for column in ("failed", "r2", "of the rest", "PCA of A", "r2", "PCA of all", "r2"):
        table.add_column(column, justify="right")
    with threadpool_limits(1):
        for name, sigma, amplitudes in _starts(W):
            for calls in (FEW, USUAL) if name != "least squares" else (FEW, USUAL, MANY):
                start = np.linspace(0.0, WIDTH - 1.0, K), np.full(K, sigma)
                fit = fit_curve_fit(W, K, maxfev=calls, start=start, amplitudes=amplitudes)
                table.add_row(f"curve_fit, {calls} calls", name, f"{sigma:g}", *_figures(fit, W))
        table.add_row("free_gaussians", "", "", *_figures(fit_free(W, K), W))
    # Cut lines are of no use in a log.
    Console(highlight=False, width=140).print(table)
    return True


def _starts(W: Array) -> list[tuple[str, float, Array | None]]:
    """What one might start from: the closed form's amplitudes, or one number for all Gaussians of a row."""
    spread, most = (np.repeat(size[:, None], K, axis=1) for size in (W.std(axis=1), np.abs(W).max(axis=1)))
    half, whole = WIDTH / (2 * K), WIDTH / K
    return [
        ("least squares", whole, None),
        ("std of the row", half, spread),
        ("std of the row", whole, spread),
        ("max of the row", half, most),
    ]


def _figures(fit: FreeFit, W: Array) -> list[str]:
    done = fit.converged
    rest = _r2(fit.decode(WIDTH)[done], W[done]) if done.any() else None
    amplitudes, kept = _through_pca(fit.amplitudes)
    everything, kept_of_all = _through_pca(np.concatenate([fit.amplitudes, fit.centres, fit.widths], axis=1))
    return [
        f"{np.mean(~done):.0%}",
        f"{_r2(fit.decode(WIDTH), W):,.3f}",
        "-" if rest is None else f"{rest:.3f}",
        str(kept),
        f"{_r2(decode_gaussians(amplitudes, fit.centres, fit.widths, WIDTH), W):,.3f}",
        str(kept_of_all),
        f"{_r2(decode_gaussians(*np.split(everything, 3, axis=1), WIDTH), W):,.3f}",
    ]


def _r2(decoded: Array, W: Array) -> float:
    """Pooled, about zero."""
    return 1 - float(np.sum((W - decoded) ** 2) / np.sum(W**2))


def _through_pca(codes: Array) -> tuple[Array, int]:
    """Codes as their first principal components give them back, as few as reach the threshold."""
    mean = codes.mean(axis=0)
    left, values, right = np.linalg.svd(codes - mean, full_matrices=False)
    shares = np.cumsum(values**2) / max(float(np.sum(values**2)), 1e-300)
    kept = min(int(np.sum(shares < THRESHOLD)) + 1, len(values))
    return mean + (left[:, :kept] * values[:kept]) @ right[:kept], kept
