"""Rows of weights as sums of Gaussians whose centres and widths are each row's own.

w_j = sum_k A_k exp(-(j - c_k)^2 / (2 s_k^2)), 3 K numbers a row, all rows fitted at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.gaussian_pursuit import pursue, relocate
from rct_ray.transform.levenberg_marquardt import Index, Mask, Measure, Minima, Slopes, minimise
from rct_ray.transform.projected_gaussians import CELLS, measure_rows

Start: TypeAlias = tuple[Array, Array]
"""Centres and widths, of shape (K,) for all rows or (n, K) for each."""

NARROWEST = 0.3
"""Places: a Gaussian of this width on a place is 0.004 on its neighbours."""
# Numbers of the Hessians of one block of rows.
_BLOCK_CELLS = 1 << 20
# Where the fixed Gaussians keep this share of what the pursuit keeps, a row descends from both.
_WORTH_TRYING = 0.5
# Rows that lose less than this share of their energy, but more than nothing, try other places for the Gaussians
# that they would miss least; on noise that gains nothing (r2 0.2065 either way).
_RELOCATIONS = 3
_SMOOTH, _EXACT = 0.5, 1e-20


@dataclass(frozen=True, slots=True, eq=False)
class FreeFit:
    """Gaussians fitted to n rows.

    Attributes
    ----------
    amplitudes, centres, widths : ndarray of shape (n, K), float64
        Centres in places, 0 for the first column; widths (sigma) likewise.
    sse : ndarray of shape (n,), float64
        Sum of squares that the decoded row misses.
    converged : ndarray of shape (n,), bool
    iterations : ndarray of shape (n,), int64
        Steps tried (calls of the model, for `curve_fit`).
    """

    amplitudes: Array
    centres: Array
    widths: Array
    sse: Array
    converged: Mask
    iterations: Index

    def decode(self, width: int, xp: Any = np) -> Array:
        """Rebuild the rows on `width` columns, shape (n, d)."""
        return decode_gaussians(self.amplitudes, self.centres, self.widths, width, xp)

    @classmethod
    def joined(cls, parts: Sequence[FreeFit], xp: Any = np) -> FreeFit:
        """The fits of blocks of rows, one after the other."""
        names = [field.name for field in fields(cls)]
        return cls(*(xp.concatenate([getattr(part, name) for part in parts]) for name in names))


def parameter_bounds(width: int, n_components: int) -> tuple[Array, Array]:
    """Lower and upper bounds of (centres, log-widths), shape (2 K,) each.

    Centres may leave the places by one spacing d / K; widths go from `NARROWEST` to 2 d.
    """
    outside = width / n_components
    lower = np.repeat([-outside, np.log(NARROWEST)], n_components)
    return lower, np.repeat([width - 1 + outside, np.log(2.0 * width)], n_components)


def decode_gaussians(amplitudes: Array, centres: Array, widths: Array, width: int, xp: Any = np) -> Array:
    """Sum the Gaussians of each row on places 0..d-1.

    Parameters
    ----------
    amplitudes, centres, widths : ndarray of shape (n, K)
        A negative width is as good as a positive one.
    width : int
        d, the number of columns.

    Returns
    -------
    ndarray of shape (n, d), float64
    """
    rows = xp.empty((len(amplitudes), width))
    group = max(1, CELLS // (width * amplitudes.shape[1]))
    for first in range(0, len(rows), group):
        part = slice(first, first + group)
        u = (xp.arange(width) - centres[part, :, None]) / widths[part, :, None]
        rows[part] = (amplitudes[part, None, :] @ xp.exp(-0.5 * u**2))[:, 0]
    return rows  # type: ignore[no-any-return]


def amplitudes_at(rows: Array, centres: Array, widths: Array, xp: Any = np) -> Array:
    """Least-squares amplitudes of each row for given centres and widths, shape (n, K)."""
    scale = _scales(rows, xp)
    parameters = xp.concatenate([centres, xp.log(widths)], axis=1)
    measured = _measure_of(rows / scale[:, None], xp)(xp.arange(len(rows)), parameters)
    return measured.amplitudes * scale[:, None]


def fit_free(
    rows: Array,
    n_components: int,
    *,
    start: Start | None = None,
    search: bool = True,
    max_iterations: int = 200,
    tolerance: float = 1e-8,
    xp: Any = np,
) -> FreeFit:
    """Fit each row with K Gaussians of its own, least squares, never worse than the start.

    Centres stay within a spacing d / K of the places and widths within `NARROWEST` and 2 d
    (`parameter_bounds`).

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
        Finite.
    n_components : int
        K, at least 1.
    start : (centres, widths), optional
        By default the fixed basis: linspace(0, d-1, K) and d / K.
    search : bool, default True
        Start as well from Gaussians picked one by one (`gaussian_pursuit.pursue`), and keep what ends lower.
        A row descends from both starts only where the first is not far behind. Rows of which Gaussians keep
        more than half also try three of them elsewhere, one at a time (`gaussian_pursuit.relocate`).
    max_iterations : int
        Steps to try from each start.
    tolerance : float
        A row has converged when a step neither promises nor gains more than this share of its sse.
    xp : module, default numpy
        Where the arrays live: NumPy or CuPy.

    Returns
    -------
    FreeFit
    """
    rows = xp.asarray(rows, dtype=np.float64)
    width = rows.shape[1]
    if not len(rows):
        empty = xp.zeros((0, n_components))
        return FreeFit(empty, empty, empty, empty[:, 0], xp.zeros(0, dtype=bool), xp.zeros(0, dtype=np.int64))
    if start is None:
        start = xp.linspace(0.0, width - 1.0, n_components), xp.full(n_components, width / n_components)
    shape = (len(rows), n_components)
    first = xp.concatenate(
        [xp.broadcast_to(start[0], shape), xp.log(xp.broadcast_to(start[1], shape))], axis=1
    )
    lower, upper = (xp.asarray(bound) for bound in parameter_bounds(width, n_components))
    settings = {"max_iterations": max_iterations, "tolerance": tolerance, "xp": xp}
    size = max(1, _BLOCK_CELLS // (2 * n_components) ** 2)
    blocks = [slice(at, at + size) for at in range(0, len(rows), size)]
    return FreeFit.joined(
        [_fit_block(rows[block], first[block], (lower, upper), search, settings) for block in blocks], xp
    )


def _fit_block(
    rows: Array, first: Array, bounds: tuple[Array, Array], search: bool, settings: dict[str, Any]
) -> FreeFit:
    xp = settings["xp"]
    scale = _scales(rows, xp)
    unit = rows / scale[:, None]
    first = xp.clip(first, *bounds)
    if search:
        found = _from_both(unit, first, bounds, settings)
    else:
        found = minimise(_measure_of(unit, xp), first, *bounds, **settings)
    centres, log_widths = xp.split(found.parameters, 2, axis=1)
    amplitudes, widths = found.slopes.amplitudes * scale[:, None], xp.exp(log_widths)
    missed = rows - decode_gaussians(amplitudes, centres, widths, rows.shape[1], xp)
    sse = xp.sum((missed / scale[:, None]) ** 2, axis=1) * scale**2
    return FreeFit(amplitudes, centres, widths, sse, found.converged, found.iterations)


def _from_both(unit: Array, first: Array, bounds: tuple[Array, Array], settings: dict[str, Any]) -> Minima:
    """Descend from what the pursuit picks, and from the start given where that may end lower."""
    xp, measure = settings["xp"], _measure_of(unit, settings["xp"])
    picked = xp.concatenate(pursue(unit, first.shape[1] // 2, xp), axis=1)
    energy = xp.sum(unit**2, axis=1)
    everything = xp.arange(len(unit))
    kept, could_keep = (energy - measure(everything, at).sse for at in (first, xp.clip(picked, *bounds)))
    close = xp.flatnonzero((kept >= _WORTH_TRYING * could_keep) & (energy > 0))
    found = minimise(measure, picked, *bounds, **settings)
    _try(found, close, first[close], unit, bounds, settings)
    for rank in range(min(_RELOCATIONS, first.shape[1] // 2)):
        smooth = xp.flatnonzero((found.slopes.sse > _EXACT) & (found.slopes.sse < _SMOOTH * energy))
        centres, log_widths = xp.split(found.parameters[smooth], 2, axis=1)
        moved = relocate(unit[smooth], centres, log_widths, rank, xp)
        _try(found, smooth, xp.concatenate(moved, axis=1), unit, bounds, settings)
    return found


def _try(
    found: Minima,
    which: Index,
    start: Array,
    unit: Array,
    bounds: tuple[Array, Array],
    settings: dict[str, Any],
) -> None:
    """Descend in some rows from another start too, and keep what ends lower."""
    xp = settings["xp"]
    if not which.size:
        return
    other = minimise(_measure_of(unit[which], xp), start, *bounds, **settings)
    found.iterations[which] += other.iterations
    lower = xp.flatnonzero(other.slopes.sse < found.slopes.sse[which])
    found.parameters[which[lower]] = other.parameters[lower]
    found.converged[which[lower]] = other.converged[lower]
    found.slopes.put(which[lower], other.slopes.take(lower))


def _measure_of(unit: Array, xp: Any) -> Measure:
    """Slopes of some of the rows, in groups that stay in cache."""

    def measure(index: Index, parameters: Array) -> Slopes:
        centres, log_widths = xp.split(parameters, 2, axis=1)
        group = max(1, CELLS // (unit.shape[1] * centres.shape[1]))
        parts = [slice(at, at + group) for at in range(0, len(index), group)]
        return Slopes.joined(
            [measure_rows(unit[index[part]], centres[part], log_widths[part], xp) for part in parts], xp
        )

    return measure


def _scales(rows: Array, xp: Any) -> Array:
    """Norms of the rows, those of zero rows one, without overflow on the way."""
    largest = xp.max(xp.abs(rows), axis=1)
    largest = xp.where(largest > 0, largest, 1.0)
    norms = largest * xp.sqrt(xp.sum((rows / largest[:, None]) ** 2, axis=1))
    return xp.where(norms > 0, norms, 1.0)  # type: ignore[no-any-return]
