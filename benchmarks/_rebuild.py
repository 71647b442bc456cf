"""The reference: a tower as the definitions say it, on whole arrays of float64, weights really rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import gaussian_functions
from rct_ray.transform.quantize import quantize
from rct_ray.transform.stages import (
    DCTStage,
    GaussianStage,
    HaarStage,
    PCAStage,
    QuantizeStage,
    RandomStage,
    RowGaussianStage,
    Stage,
    SVDStage,
)

Array: TypeAlias = NDArray[np.float64]
# Numbers for each row, and the way back.
Code: TypeAlias = tuple[Array, Callable[[Array], Array]]


@dataclass(frozen=True, slots=True)
class Loss:
    """Sums of squares: of what rebuilding loses at one level, of the weights, and about their mean."""

    sse: float
    sst: float
    sst_centered: float


def rebuilt_losses(W: Array, stages: Sequence[Stage], metric: str) -> list[Loss]:
    """Encode, decode all the way down to weights, and subtract, at every level."""
    codes, decoders, losses = W, [], []
    sst, sst_centered = _squares(W), _squares(W - W.mean())
    for level, stage in enumerate(stages):
        codes, decode = _take(stage, codes, metric, first=level == 0)
        decoders.append(decode)
        rebuilt = codes
        for back in reversed(decoders):
            rebuilt = back(rebuilt)
        losses.append(Loss(_squares(W - rebuilt), sst, sst_centered))
    return losses


def _take(stage: Stage, X: Array, metric: str, *, first: bool) -> Code:
    if isinstance(stage, PCAStage):
        mean = X.mean(axis=0)
        singular, components = _right_singular(X - mean)
        explained = np.cumsum(singular**2)
        count = int(np.searchsorted(explained, stage.threshold * explained[-1])) + 1
        return (X - mean) @ components[:count].T, lambda codes: codes @ components[:count] + mean
    if isinstance(stage, RowGaussianStage):
        return _along_rows(stage, X)
    if isinstance(stage, QuantizeStage):
        return _rounded(stage, X)
    count = stage.components_for(X.shape[1]) if first else min(stage.components_for(X.shape[1]), X.shape[1])
    if isinstance(stage, SVDStage):
        leading = _right_singular(X)[1][:count]
        return X @ leading.T, lambda codes: codes @ leading
    functions: Array = _functions(stage, X.shape[1], count)
    if metric == "isometric":
        frame, mixing = np.linalg.qr(functions.T)
        functions = (frame * np.sign(np.diag(mixing))).T
    return np.asarray(np.linalg.lstsq(functions.T, X.T, rcond=None)[0].T), lambda codes: codes @ functions


def _along_rows(stage: RowGaussianStage, X: Array) -> Code:
    """Gaussians along the rows by dense QR, rows sorted by their first left singular vector."""
    order = np.arange(len(X))
    if stage.order == "svd":
        order = np.argsort(X @ _right_singular(X)[1][0], kind="stable")
    count = min(stage.components_for(len(X)), len(X))
    frame, mixing = np.linalg.qr(gaussian_functions(len(X), count, stage.relative_width).T)
    frame *= np.sign(np.diag(mixing))

    def back(codes: Array) -> Array:
        rebuilt = np.empty_like(X)
        rebuilt[order] = frame @ codes
        return rebuilt

    return frame.T @ X[order], back


def _rounded(stage: QuantizeStage, X: Array) -> Code:
    """Codes rounded as the product rounds them: what is checked is what that loses of the weights."""
    return quantize(X, stage.bits).values(), lambda codes: codes


def _functions(stage: Stage, width: int, count: int) -> Array:
    if isinstance(stage, GaussianStage):
        return gaussian_functions(width, count, stage.relative_width)
    if isinstance(stage, DCTStage):
        places, frequencies = np.arange(width) + 0.5, np.arange(count)[:, None]
        waves = np.cos(np.pi / width * frequencies * places)
        return np.asarray(waves / np.linalg.norm(waves, axis=1, keepdims=True))
    assert isinstance(stage, HaarStage | RandomStage)
    return stage.make(width, count).functions


def _right_singular(X: Array) -> tuple[Array, Array]:
    _, singular, rows = np.linalg.svd(X, full_matrices=False)
    peaks = np.argmax(np.abs(rows), axis=1)
    return singular, rows * np.sign(rows[np.arange(len(rows)), peaks])[:, None]


def _squares(X: Array) -> float:
    return float(np.vdot(X, X))
