"""`DistributedPCA` on rows that are already with its workers, against scikit-learn's PCA in one process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from benchmarks._table import Report, at_least, at_most
from benchmarks._timing import fastest
from rct_ray.engine.distributed_pca import DistributedPCA, Method

ROWS, WIDTH, WORKERS = 1_000_000, 64, 2
# Minima need rounds; the fast ones can have many.
ROUNDS = {"fast": 40, "slow": 4}
# |s - s_ref| / s_1 that each method must keep to.
TOLERANCES: dict[Method, float] = {"moments": 1e-7, "tsqr": 1e-12}


def main() -> bool:
    X = rows()
    with DistributedPCA(n_workers=WORKERS) as pca:
        pca.load(X)
        # In this order: threads of OpenBLAS spin for a while after a product, and would take the workers' cores.
        works: dict[str, Callable[[], object]] = {
            f"{solver} {threads}": partial(reference, X, solver, threads)
            for solver in ("full", "covariance_eigh")
            for threads in (WORKERS, 1)
        }
        works["moments"] = lambda: pca.set_params(method="moments").fit()
        works["tsqr"] = lambda: pca.set_params(method="tsqr").fit()
        fast = {name: work for name, work in works.items() if not name.startswith("full")}
        taken = fastest(fast, ROUNDS["fast"] // 2)
        again = fastest(works, ROUNDS["slow"]), fastest(fast, ROUNDS["fast"] // 2)
        taken = {name: min(part[name] for part in (taken, *again) if name in part) for name in works}
        errors = {method: error_of(pca, method, X) for method in TOLERANCES}
    return report(taken, errors).show()


def report(taken: dict[str, float], errors: dict[Method, float]) -> Report:
    """Ratios against scikit-learn with one BLAS thread or two, whichever is faster."""
    rounds = f"least of {ROUNDS['slow']} to {sum(ROUNDS.values())} rounds"
    title = f"PCA of {ROWS:,} x {WIDTH} float32, {WORKERS} workers, rows resident; {rounds}"
    table = Report(title, "method", "figure", "seconds", "against")
    best = {
        solver: min(taken[f"{solver} {threads}"] for threads in (1, WORKERS))
        for solver in ("covariance_eigh", "full")
    }
    eigh, full = (f"scikit-learn {solver}, {best[solver]:.3f} s" for solver in best)
    slower = taken["moments"] / best["covariance_eigh"]
    table.add("moments", "time", f"{taken['moments']:.3f}", eigh, ratio=slower, required=at_most(1.5))
    for method, bound in (("moments", 8.0), ("tsqr", 1.0)):
        faster = best["full"] / taken[method]
        table.add(method, "speed", f"{taken[method]:.3f}", full, ratio=faster, required=at_least(bound))
    for method, tolerance in TOLERANCES.items():
        table.add(
            method, f"|s - s_ref| / s_1 = {errors[method]:.1e}", "", f"full SVD in float64, {tolerance:g}",
            ratio=errors[method] / tolerance, required=at_most(1),
        )  # fmt: skip
    return table


def rows() -> NDArray[np.float32]:
    """Rows with singular values over three decades, off centre."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, WIDTH), dtype=np.float32) * np.geomspace(1, 1e-3, WIDTH, dtype="f4") + 1


def reference(X: NDArray[np.floating], solver: str, threads: int) -> PCA:
    with threadpool_limits(threads):
        return PCA(svd_solver=solver).fit(X)


def error_of(pca: DistributedPCA, method: Method, X: NDArray[np.float32]) -> float:
    wanted = reference(X.astype(np.float64), "full", WORKERS).singular_values_
    found = pca.set_params(method=method).fit().singular_values_
    return float(np.abs(found - wanted).max() / wanted[0])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
