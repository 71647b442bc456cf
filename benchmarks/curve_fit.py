"""The seed's way, scipy's curve_fit row by row, against the closed form; for information."""

from __future__ import annotations

from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from threadpoolctl import threadpool_limits

from benchmarks._files import PHOTONIC, noise, read_plainly
from benchmarks._table import Report
from benchmarks._timing import fastest, seconds
from rct_ray.transform.basis import Basis, gaussian_basis
from rct_ray.transform.encode import Encoder
from rct_ray.transform.moments import CoordinateMoments, merge_all

Array = NDArray[np.float64]
ROWS, WIDTH, K, FITTED = 46_398, 256, 8, 20
# curve_fit's own default for 24 parameters.
CALLS = 200 * (3 * K + 1)


def main() -> bool:
    report = Report(
        f"Gaussian fits of {ROWS} rows of {WIDTH} weights, K={K}, one thread",
        "how",
        "rows/s",
        "seconds",
        "r2",
    )
    W = _rows()
    basis = gaussian_basis(WIDTH, K)
    sample = W[np.random.default_rng(0).choice(ROWS, FITTED, replace=False)].astype(np.float64)
    with threadpool_limits(1):
        kept: list[float] = []
        slow = seconds(lambda: kept.append(_fit(sample, basis))) * ROWS / FITTED
        fast = fastest({"ours": lambda: _encode(W, basis)}, 5)["ours"]
        # The sample's own r2, to be compared with what curve_fit makes of the same rows.
        closed = _encode(sample, basis)
    shown = f"curve_fit of {3 * K} parameters ({FITTED} rows, extrapolated)"
    report.add(shown, f"{ROWS / slow:.0f}", f"{slow:.0f}", f"{kept[0]:.4f}", ratio=slow / fast)
    report.add("closed form, with moments", f"{ROWS / fast:.0f}", f"{fast:.3f}", f"{closed:.4f}", ratio=1.0)
    return report.show()


def _rows() -> NDArray[np.float32]:
    if not PHOTONIC.exists():
        return noise(ROWS * WIDTH).reshape(ROWS, WIDTH)
    matrices = read_plainly(PHOTONIC).items()
    chosen = [W for name, W in matrices if W.shape[1] == WIDTH and not name.startswith("pos_emb")]
    return np.vstack(chosen).astype(np.float32)


def _encode(W: NDArray[np.floating], basis: Basis) -> float:
    encoder = Encoder(basis.frame, single=True)
    moments = merge_all(encoder.encode(W[start : start + 512]) for start in range(0, len(W), 512))
    assert isinstance(moments.projected, CoordinateMoments)
    return moments.projected.energy / moments.weights.energy


def _fit(rows: Array, basis: Basis) -> float:
    """Fit amplitudes, centres and widths from the closed form on; r2, where a failed fit keeps its start."""
    places = np.arange(WIDTH, dtype=np.float64)
    centres, sigma = np.linspace(0.0, WIDTH - 1.0, K), WIDTH / K
    lost = 0.0
    for row in rows:
        start = np.concatenate([row @ basis.frame @ basis.unmixing(), centres, np.full(K, sigma)])
        try:
            with catch_warnings(action="ignore"):  # of covariances that nobody asked for
                fitted, _ = curve_fit(_model, places, row, p0=start, maxfev=CALLS)
        except RuntimeError:
            fitted = start
        lost += float(np.sum((row - _model(places, *fitted)) ** 2))
    return 1 - lost / float(np.sum(rows**2))


def _model(places: Array, *parameters: float) -> Array:
    amplitudes, centres, widths = np.split(np.asarray(parameters), 3)
    return np.asarray(amplitudes @ np.exp(-0.5 * ((places - centres[:, None]) / widths[:, None]) ** 2))
