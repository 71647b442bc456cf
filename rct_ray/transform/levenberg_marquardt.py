"""Levenberg-Marquardt on many small problems at once, each with its own damping and its own end.

The arrays may be NumPy's or CuPy's: all that is done to them goes through the namespace `xp`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array

Mask: TypeAlias = NDArray[np.bool_]
Index: TypeAlias = NDArray[np.int64]

# Sums of squares are in units of a problem's energy: this is nothing, to rounding.
_NOTHING = 1e-24
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-10, 1e10
# Curvature of a parameter that does nothing (a Gaussian of no amplitude), beside that of the one that does most.
_FLOOR = 1e-12
# A step has to make this angle (its cosine) with the descent, or the curvature was not that of a valley.
_LEAST_COSINE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """Where n problems of m parameters stand, with what a step needs to know.

    Attributes
    ----------
    sse : ndarray of shape (n,)
        Sums of squares, amplitudes at their best.
    amplitudes : ndarray of shape (n, K)
        These best ones, or anything else to be had at the end.
    descent : ndarray of shape (n, m)
        Minus the gradient of sse / 2.
    gauss_newton : ndarray of shape (n, m, m)
        J^T J of Kaufman's Jacobian: never negative.
    newton : ndarray of shape (n, m, m)
        The Hessian of sse / 2: exact, but not that of a valley everywhere.
    reach : ndarray of shape (n, m)
        The farthest that a step should go at once.
    """

    sse: Array
    amplitudes: Array
    descent: Array
    gauss_newton: Array
    newton: Array
    reach: Array

    @classmethod
    def joined(cls, parts: Sequence[Slopes], xp: Any = np) -> Slopes:
        """Of problems in groups."""
        names = [field.name for field in fields(cls)]
        return cls(*(xp.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, chosen: Index) -> Slopes:
        """Of some of the problems."""
        return Slopes(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def put(self, chosen: Index, better: Slopes) -> None:
        """Replace those of some problems."""
        for field in fields(self):
            getattr(self, field.name)[chosen] = getattr(better, field.name)


Measure: TypeAlias = Callable[[Index, Array], Slopes]
"""Indices of problems and their parameters, one problem a row, to slopes."""


@dataclass(frozen=True, slots=True, eq=False)
class Minima:
    """Where the problems ended: parameters (n, m), slopes there, whether they converged, steps tried."""

    parameters: Array
    slopes: Slopes
    converged: Mask
    iterations: Index


def minimise(
    measure: Measure,
    start: Array,
    lower: Array,
    upper: Array,
    *,
    max_iterations: int,
    tolerance: float,
    xp: Any = np,
) -> Minima:
    """Descend from a start, never to a larger sum of squares, within bounds.

    A step solves with the exact Hessian where that leads down, else with Kaufman's J^T J, both damped after
    Marquardt; a parameter at its bound that wants to leave is held for that step. Damping follows Nielsen (1999).

    Parameters
    ----------
    measure : callable
        Indices of problems and their parameters to `Slopes`; energies scaled to about one.
    start : ndarray of shape (n, m)
        Clipped to the bounds.
    lower, upper : ndarray of shape (m,)
    max_iterations : int
        Steps to try.
    tolerance : float
        A problem has converged when a step of small damping neither promises nor gains more than this share
        of its sum of squares.
    xp : module, default numpy
        Or CuPy.
    """
    place = xp.clip(start, lower, upper)
    here = measure(xp.arange(len(place)), place)
    damping, growth = xp.full(len(place), _FIRST_DAMPING), xp.full(len(place), 2.0)
    converged = here.sse <= _NOTHING
    iterations = xp.zeros(len(place), dtype=np.int64)
    active = xp.flatnonzero(~converged)
    for _ in range(max_iterations):
        if not active.size:
            break
        trial, promised = _step(here.take(active), place[active], damping[active], lower, upper, xp)
        there = measure(active, trial)
        before = here.sse[active]
        gained = before - there.sse
        better = gained > 0
        place[active[better]] = trial[better]
        here.put(active[better], there.take(xp.flatnonzero(better)))

        small = (xp.abs(gained) <= tolerance * before) & (promised <= tolerance * before)
        done = (small & (damping[active] <= 1)) | (here.sse[active] <= _NOTHING)
        _damp(damping, growth, active, xp.where(better, gained / xp.maximum(promised, 1e-30), -1.0), xp)
        iterations[active] += 1
        # No step however short leads down: as low as rounding allows.
        stuck = damping[active] > _MOST_DAMPING
        converged[active] = done | (stuck & small)
        active = active[~(done | stuck)]
    return Minima(place, here, converged, iterations)


def _step(
    slopes: Slopes, place: Array, damping: Array, lower: Array, upper: Array, xp: Any
) -> tuple[Array, Array]:
    """Where each problem tries next, and how much less than its sum of squares the quadratic promises there."""
    held = ((place <= lower) & (slopes.descent < 0)) | ((place >= upper) & (slopes.descent > 0))
    descent = xp.where(held, 0.0, slopes.descent)
    curvature = xp.einsum("nii->ni", slopes.gauss_newton)
    curvature = xp.maximum(curvature, _FLOOR * xp.max(curvature, axis=1, keepdims=True) + 1e-100)
    load = xp.where(held, 1.0, damping[:, None] * curvature)

    quadratic = xp.array(slopes.newton)
    step = _solved(quadratic, load, held, descent, xp)
    lengths = xp.sqrt(xp.sum(step**2 * curvature, axis=1) * xp.sum(descent**2 / curvature, axis=1))
    uphill = xp.flatnonzero(~(xp.sum(step * descent, axis=1) >= _LEAST_COSINE * lengths))
    if uphill.size:
        quadratic[uphill] = slopes.gauss_newton[uphill]
        step[uphill] = _solved(quadratic[uphill], load[uphill], held[uphill], descent[uphill], xp)
    step /= xp.maximum(xp.max(xp.abs(step) / slopes.reach, axis=1, keepdims=True), 1.0)
    trial = xp.clip(place + step, lower, upper)
    step = trial - place
    return trial, 2 * xp.sum(step * descent, axis=1) - xp.einsum("ni,nij,nj->n", step, quadratic, step)


def _solved(quadratic: Array, load: Array, held: Mask, descent: Array, xp: Any) -> Array:
    """Solve the loaded systems, those parameters held aside that may not move."""
    free = ~held
    system = quadratic * (free[:, :, None] & free[:, None, :])
    index = xp.arange(system.shape[1])
    system[:, index, index] += load
    try:
        solved: Array = xp.linalg.solve(system, descent[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        # One of them is singular to the last bit; what the others lose by it, their next step makes up.
        solved = descent / load
    return solved


def _damp(damping: Array, growth: Array, active: Index, ratio: Array, xp: Any) -> None:
    """Damp less after a step that kept its promise, more and more after steps that led up (ratio -1)."""
    worked = ratio > 0
    factor = xp.maximum(0.1, 1 - (2 * xp.minimum(ratio, 1.0) - 1) ** 3)
    now = damping[active] * xp.where(worked, factor, growth[active])
    damping[active] = xp.maximum(now, _LEAST_DAMPING)
    growth[active] = xp.where(worked, 2.0, growth[active] * 2)
