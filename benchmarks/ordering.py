"""Column orders on a trained checkpoint: what Gaussians along them keep, over what the best rank-K matrix does.

The trained checkpoint of 10.3 M parameters where it is at hand (and the same model untrained, for the null),
else the small one in the package.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import rct_ray
from benchmarks._files import PHOTONIC, read_plainly
from benchmarks._table import Report, at_least, at_most
from benchmarks._timing import seconds
from rct_ray.transform.basis import default_components, gaussian_basis
from rct_ray.transform.moments import WeightMoments
from rct_ray.transform.noise import noise_coordinates
from rct_ray.transform.ordering import place_columns

TINY = Path(rct_ray.__file__).parent / "data/tiny-step02500.safetensors"
TOWERS = (
    ("as they stand", "gaussian"),
    ("by the first singular vector", "gaussian(order=svd)"),
    ("assigned, no signs", "gaussian(order=assign, signs=no)"),
    ("assigned", "gaussian(order=assign)"),
    ("assigned, and Gaussians fitted", "gaussian(order=assign, fit=shared)"),
)


def main() -> bool:
    trained = PHOTONIC if PHOTONIC.exists() else TINY
    required = trained == PHOTONIC
    with threadpool_limits(1):
        matrices = read_plainly(trained)
        best = {name: _best(W) for name, W in matrices.items()}
        report = Report(
            f"{trained.parent.name}/{trained.name}: energy kept by K = d/32 Gaussians over that of the best rank K",
            *("columns", "mean", "worst", "pooled", "worst lift"),
        )
        for label, tower in TOWERS:
            kept, lift = _kept(trained, tower)
            shares = np.array([kept[name] / best[name] for name in matrices])
            energy = {name: float(np.sum(W**2)) for name, W in matrices.items()}
            pooled = sum(kept[name] * energy[name] for name in matrices) / sum(
                best[name] * energy[name] for name in matrices
            )
            cells = (
                f"{shares.mean():.3f}",
                f"{shares.min():.3f}",
                f"{pooled:.3f}",
                f"{min(lift.values()):.4f}",
            )
            if tower == "gaussian(order=assign)":
                wanted = (0.65, 0.5, 0.96) if required else (0.0, 0.0, 0.0)
                report.add(f"{label}: mean", *cells, ratio=shares.mean(), required=at_least(wanted[0]))
                report.add(f"{label}: worst", *cells, ratio=shares.min(), required=at_least(wanted[1]))
                report.add(f"{label}: pooled", *cells, ratio=pooled, required=at_least(wanted[2]))
            else:
                report.add(label, *cells, ratio=shares.mean())
        met = report.show()
        met &= _untrained(trained.with_name("step00000.safetensors"))
        return _cost(trained, matrices) and met


def _best(W: NDArray[np.float64]) -> float:
    """Share of the energy that the best matrix of rank d/32 keeps, from a full SVD."""
    squares = np.linalg.svd(W, compute_uv=False) ** 2
    return float(squares[: default_components(W.shape[1])].sum() / squares.sum())


def _kept(path: Path, tower: str) -> tuple[dict[str, float], dict[str, float]]:
    with tempfile.TemporaryDirectory() as name:
        run = rct_ray.run(path, Path(name) / "run", rct_ray.RunConfig(tower=tower), engine="inprocess")
        rows = [row for row in run.levels.to_pylist() if row["scope"] == "tensor" and row["level"] == 1]
    return {row["name"]: row["r2"] for row in rows}, {row["name"]: row["lift"] for row in rows}


def _untrained(path: Path) -> bool:
    report = Report("The same model untrained: lift over the null", "columns")
    if not path.exists():
        report.add("assigned: greatest lift of a tensor", ratio=None, required=at_most(0.02))
        return report.show()
    _, lift = _kept(path, "gaussian(order=assign)")
    report.add("assigned: greatest lift of a tensor", ratio=max(lift.values()), required=at_most(0.02))
    return report.show()


def _cost(path: Path, matrices: dict[str, NDArray[np.float64]]) -> bool:
    """The search for all tensors, and for their nulls too, over encoding the checkpoint; one thread."""
    with tempfile.TemporaryDirectory() as name:
        encode = min(_encode_seconds(path, Path(name) / f"run{turn}") for turn in range(3))
    _search([np.eye(64)])
    alone = beside = 0.0
    for width in {W.shape[1] for W in matrices.values()}:
        own = [W for W in matrices.values() if W.shape[1] == width]
        second = [W.T @ W for W in own]
        alone += _search(second)
        pairs = zip(second, [_noise(W) for W in own], strict=True)
        beside += _search([H for pair in pairs for H in pair])
    report = Report(
        "One thread: seconds of the search over those of encoding the same checkpoint", "what", "s"
    )
    report.add("encode, `gaussian` (column moments for the SVD bound included)", f"{encode:.2f}", ratio=1.0)
    report.add("search, the weights", f"{alone:.2f}", ratio=alone / encode, required=at_most(10))
    report.add("search, the weights and their nulls", f"{beside:.2f}", ratio=beside / encode)
    return report.show()


def _search(second: list[NDArray[np.float64]]) -> float:
    frame = gaussian_basis(len(second[0]), default_components(len(second[0]))).frame
    return min(seconds(lambda: place_columns(second, frame, "assign", signed=True)) for _ in range(2))


def _noise(W: NDArray[np.float64]) -> NDArray[np.float64]:
    like = WeightMoments(W.size, 0.0, float(np.sum(W**2)))
    return noise_coordinates(like, len(W), None, W.shape[1], np.random.default_rng(0)).second_moment


def _encode_seconds(path: Path, out: Path) -> float:
    run = rct_ray.run(path, out, rct_ray.RunConfig(tower="gaussian"), engine="inprocess", workers=1)
    return float(np.sum(run.shards.column("seconds_encode").to_numpy()))
