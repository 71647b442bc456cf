"""Stages that need the rows of a code themselves: their errors are measured on rows really rebuilt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rct_ray.transform.affine_code import AffineCode, Metric, Step, Summed
from rct_ray.transform.basis import Array
from rct_ray.transform.climb import later_step
from rct_ray.transform.code_length import BITS_PER_PARAMETER, order_bits
from rct_ray.transform.curve_fit import fit_curve_fit
from rct_ray.transform.free_gaussians import NARROWEST, decode_gaussians, fit_free
from rct_ray.transform.moments import CoordinateMoments, coordinate_moments
from rct_ray.transform.quantize import code_bits, quantize
from rct_ray.transform.row_gaussians import order_of_rows, row_gaussians
from rct_ray.transform.rung import RowStep, Rung
from rct_ray.transform.stages import FreeGaussianStage, QuantizeStage, RowGaussianStage, Stage

Decode = Callable[[Array], Array]


@dataclass(frozen=True, slots=True, eq=False)
class Footing:
    """Orthonormal coordinates of the weights that rows are climbed from.

    Attributes
    ----------
    first : Step or None
        The step whose code they are; None for the coordinates that the tower starts with.
    moments : CoordinateMoments or CoordinateFactors
        Of the coordinates.
    outside : float
        Sum of squares of W that these do not hold.
    code : AffineCode
        From there to the level that rows are needed at.
    """

    first: Step | None
    moments: Summed
    outside: float
    code: AffineCode

    @classmethod
    def of(cls, rungs: Sequence[Rung], base: Summed, outside: float, metric: Metric) -> Footing:
        """After the first step if it is orthonormal: what it loses is then orthogonal to all that comes later."""
        steps = [rung.step for rung in rungs if isinstance(rung.step, Step)]
        first = steps.pop(0) if steps and metric == "isometric" else None
        moments = first.code if first else base
        code = AffineCode.of_frame(np.eye(len(moments.mean)))
        for step in steps:
            code = code.then(step)
        return cls(first, moments, rungs[0].sse if first else outside, code)

    def rows(self, gathered: Array) -> Array:
        """The coordinates of rows that were gathered at the start of the tower."""
        return gathered if self.first is None else (gathered - self.first.mean) @ self.first.encoder


def climb_rows(
    rows: Array,
    start: Footing,
    below: Sequence[Rung],
    stages: Sequence[Stage],
    metric: Metric = "isometric",
    kept: Sequence[int] | None = None,
) -> list[Rung]:
    """Climb on where moments end: each level is decoded for real, down to the coordinates it started from.

    Parameters
    ----------
    rows : ndarray of shape (n, m), float64
        Coordinates at the footing.
    start : Footing
    below : sequence of Rung
        Climbed already.
    stages : sequence of Stage
        What comes after these.
    metric : {"isometric", "amplitude"}
    kept : sequence of int, optional
        Components to keep at each of `stages` (a null at equal charge).
    """
    decoders: list[Decode] = [start.code.decode]
    codes = start.code.encode(rows)
    charged = sum(rung.step.charge for rung in below)
    side_bits = below[-1].side_bits if below else 0.0
    rungs: list[Rung] = []
    for index, stage in enumerate(stages):
        step, above, decode = _taken(codes, stage, metric, kept[index] if kept else None)
        decoders.append(decode)
        charged += step.charge
        side_bits += step.side_bits
        rebuilt = above
        for back in reversed(decoders):
            rebuilt = back(rebuilt)
        sse = start.outside + float(np.sum((rows - rebuilt) ** 2))
        if below or rungs:
            sse_prev, sst_prev = float(np.sum((codes - decode(above)) ** 2)), float(np.sum(codes**2))
        else:
            sse_prev, sst_prev = sse, start.outside + float(np.sum(rows**2))
        numbers = step.numbers if isinstance(step, RowStep) else above.size
        rungs.append(Rung(stage, step, numbers + charged, side_bits, sse, sse_prev, sst_prev))
        codes = above
    return rungs


def rows_like(moments: Summed, generator: np.random.Generator) -> Array:
    """Draw rows of exactly these moments, otherwise at random, shape (n, m).

    Structureless rows of a given scatter: normal ones, rotated and scaled to it.
    """
    size = len(moments.mean)
    drawn = generator.standard_normal((moments.rows, size))
    drawn -= drawn.mean(axis=0)
    basis, values, _ = np.linalg.svd(drawn, full_matrices=False)
    rank = int(np.sum(values > values[:1] * 1e-12)) if moments.rows > 1 else 0
    spectrum = CoordinateMoments(moments.rows, moments.mean, moments.scatter).spectrum()
    root = np.sqrt(spectrum.eigenvalues[:rank])[:, None] * spectrum.components[:rank]
    return np.asarray(moments.mean + basis[:, :rank] @ root)


def _taken(
    codes: Array, stage: Stage, metric: Metric, kept: int | None
) -> tuple[Step | RowStep, Array, Decode]:
    if isinstance(stage, QuantizeStage):
        return _quantized(codes, stage)
    if isinstance(stage, RowGaussianStage):
        return _along_rows(codes, stage)
    if isinstance(stage, FreeGaussianStage):
        return _freely(codes, stage)
    step = later_step(coordinate_moments(codes), stage, metric, kept)
    alone = AffineCode.of_frame(np.eye(codes.shape[1])).then(step)
    return step, alone.encode(codes), alone.decode


def _quantized(codes: Array, stage: QuantizeStage) -> tuple[RowStep, Array, Decode]:
    quantized = quantize(codes, stage.bits)
    bits = code_bits(quantized)
    matrices = (("offset", quantized.offset[None, :]), ("step", quantized.step[None, :]))
    size = codes.shape[1]
    step = RowStep(size, 2 * size, math.ceil(bits / BITS_PER_PARAMETER), matrices=matrices, code_bits=bits)
    return step, quantized.values(), lambda above: above


def _freely(codes: Array, stage: FreeGaussianStage) -> tuple[RowStep, Array, Decode]:
    count, width = codes.shape
    size = min(stage.components_for(width), width)
    start = np.linspace(0.0, width - 1.0, size), np.full(size, stage.relative_width * width / size)
    fit = (fit_free if stage.fit == "free" else fit_curve_fit)(codes, size, start=start)
    matrices = (("converged", fit.converged.astype(np.float64)[None, :]),)
    step = RowStep(3 * size, 0, count * 3 * size, matrices=matrices, converged=float(np.mean(fit.converged)))
    return step, np.concatenate([fit.amplitudes, fit.centres, fit.widths], axis=1), _decode_freely(width)


def _decode_freely(width: int) -> Decode:
    def decode(above: Array) -> Array:
        amplitudes, centres, widths = np.split(above, 3, axis=1)
        # A later stage may bring a width to nothing, or turn it about.
        return decode_gaussians(amplitudes, centres, np.maximum(np.abs(widths), NARROWEST), width)

    return decode


def _along_rows(codes: Array, stage: RowGaussianStage) -> tuple[RowStep, Array, Decode]:
    count, size = codes.shape
    n_components = min(stage.components_for(count), count)
    basis = row_gaussians(count, n_components, stage.relative_width)
    if stage.order == "none":
        step = RowStep(size, 0, n_components * size)
        return step, basis.encode(codes), basis.decode
    order = order_of_rows(codes)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    matrices = (("order", order.astype(np.float64)[None, :]),)
    step = RowStep(size, 0, n_components * size, order_bits(count), matrices)
    return step, basis.encode(codes[order]), lambda above: basis.decode(above)[place]
