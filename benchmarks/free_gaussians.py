"""Free Gaussians: all rows at once against scipy's curve_fit row by row, from the same start, to convergence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks._sample import WIDTH, sample_rows
from benchmarks._table import Report, Requirement, at_least, at_most
from benchmarks._timing import fastest, seconds
from rct_ray.transform.curve_fit import fit_curve_fit
from rct_ray.transform.free_gaussians import FreeFit, fit_free, parameter_bounds

Array = NDArray[np.float64]
K = 8
# Of the 512 rows; curve_fit takes about a second for each, and ten for one that does not converge.
ROWS = 48
CALLS = 100_000
# Sums of squares that differ by less are the same minimum.
SAME = 1e-6


def main(rows: int | None = None) -> bool:
    W = sample_rows(rows or ROWS)
    report = Report(
        f"Fits of {len(W)} rows of {WIDTH} weights by {K} free Gaussians, one thread",
        "how",
        "seconds a row",
        "converged",
        "r2",
    )
    with threadpool_limits(1):
        theirs, taken = _row_by_row(W)
        kept: dict[str, FreeFit] = {}
        ours = fastest({"all": lambda: kept.update(all=fit_free(W, K))}, 3)["all"] / len(W)
        alone = seconds(lambda: kept.update(alone=fit_free(W, K, search=False))) / len(W)
    done = theirs.converged
    # Only what converged counts as its time: what gave up took longer still.
    slow = float(np.mean(taken[done]))
    report.add(f"curve_fit, at most {CALLS} calls", f"{slow:.3f}", *_shown(theirs, W), ratio=slow / ours)
    report.add("free_gaussians", f"{ours:.5f}", *_shown(kept["all"], W), ratio=1.0)
    report.add(
        "the same, from curve_fit's start alone",
        f"{alone:.5f}",
        *_shown(kept["alone"], W),
        ratio=alone / ours,
    )

    def tell(what: str, ratio: float, required: Requirement | None = None) -> None:
        report.add(what, "", "", "", ratio=ratio, required=required)

    tell("times as fast as curve_fit", slow / ours, at_least(100))
    tell("share of rows with no larger sse than curve_fit's", _no_worse(kept["all"], theirs), at_least(0.99))
    tell("rows that are not finite", len(W) * (1 - _finite(kept["all"])), at_most(0))
    tell("share of rows with no larger sse, from curve_fit's start alone", _no_worse(kept["alone"], theirs))
    tell("share of curve_fit's rows outside our bounds, of those that converged", _outside(theirs, done))
    tell("calls of the model until curve_fit converges, median", float(np.median(theirs.iterations[done])))
    largest = float(np.max(np.abs(theirs.amplitudes)) / np.max(np.abs(W)))
    tell("curve_fit's largest amplitude over the largest weight", largest)
    return report.show()


def _row_by_row(W: Array) -> tuple[FreeFit, Array]:
    fits: list[FreeFit] = []
    taken = [seconds(lambda row=row: fits.append(fit_curve_fit(row[None], K, maxfev=CALLS))) for row in W]
    return FreeFit.joined(fits), np.asarray(taken)


def _shown(fit: FreeFit, W: Array) -> tuple[str, str]:
    return f"{np.mean(fit.converged):.3f}", f"{1 - np.sum(fit.sse) / np.sum(W**2):.4f}"


def _no_worse(fit: FreeFit, other: FreeFit) -> float:
    return float(np.mean(fit.sse <= other.sse * (1 + SAME)))


def _finite(fit: FreeFit) -> float:
    values = np.concatenate([fit.amplitudes, fit.centres, fit.widths, fit.sse[:, None]], axis=1)
    return float(np.mean(np.all(np.isfinite(values), axis=1)))


def _outside(fit: FreeFit, which: NDArray[np.bool_]) -> float:
    lower, upper = parameter_bounds(WIDTH, K)
    parameters = np.concatenate([fit.centres, np.log(fit.widths)], axis=1)[which]
    return float(np.mean(np.any((parameters < lower) | (parameters > upper), axis=1)))
