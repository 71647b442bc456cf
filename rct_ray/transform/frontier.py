"""What every choice of code keeps of one matrix, and for how many bits: the points of a frontier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from rct_ray.transform.affine_code import Step
from rct_ray.transform.basis import Array
from rct_ray.transform.climb import later_step
from rct_ray.transform.code_length import BITS_PER_PARAMETER
from rct_ray.transform.learned import orthonormal_step
from rct_ray.transform.moments import CoordinateMoments, coordinate_moments
from rct_ray.transform.quantize import code_bits, quantize
from rct_ray.transform.spectrum import Spectrum
from rct_ray.transform.stages import FixedStage, LearnedStage, PCAStage, SVDStage

Kind: TypeAlias = Literal["code", "null", "reference"]
# Weights that share a scale and an offset when they are rounded to nearest, as quantized checkpoints have it.
_GROUP = 128
TRUNCATED = "truncated SVD"


@dataclass(frozen=True, slots=True)
class Grid:
    """What is swept.

    Attributes
    ----------
    stages : tuple of FixedStage or LearnedStage
        Bases and orderings; their own K is not used.
    shares : tuple of float
        Components, as shares of the columns.
    thresholds : tuple of (float or None)
        Of a PCA after the basis; None for none.
    bits : tuple of (int or None)
        To round the code to; None for 16-bit floats as they are.
    rounding : tuple of int
        Bits of the reference that rounds the weights themselves to nearest.
    budgets : tuple of float
        Bits a weight of the reference that keeps the best low-rank factors.
    """

    stages: tuple[FixedStage | LearnedStage, ...]
    shares: tuple[float, ...] = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
    thresholds: tuple[float | None, ...] = (None, 0.99, 0.9)
    bits: tuple[int | None, ...] = (None, 8, 4, 3, 2)
    rounding: tuple[int, ...] = (8, 4, 3, 2)
    budgets: tuple[float, ...] = tuple(2.0 ** (power / 2) for power in range(-10, 9))


@dataclass(frozen=True, slots=True)
class Setting:
    """One choice; points of equal settings add up over matrices.

    Attributes
    ----------
    kind : {"code", "null", "reference"}
        A null is the same code, fitted to the matrix with its entries shuffled.
    curve : str
        The basis as a tower has it, or what the reference is.
    share : float or None
        Components over columns.
    threshold : float or None
    bits : int or None
    """

    kind: Kind
    curve: str
    share: float | None = None
    threshold: float | None = None
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """What a setting costs and loses on one matrix: bits in all, and sum of squared errors."""

    setting: Setting
    total_bits: float
    sse: float


def frontier_points(W: Array, grid: Grid, seed: Sequence[int]) -> Iterator[Point]:
    """Every point of one matrix, from rows in hand; errors of rounding are those of really rounded codes.

    Parameters
    ----------
    W : ndarray of shape (n, d), float64
    grid : Grid
    seed : sequence of int
        Of the shuffle.
    """
    matrix = _Matrix.of(W)
    yield from _low_rank(matrix, grid)
    for bits in grid.rounding:
        yield _to_nearest(W, bits)
    for stage in grid.stages:
        for share in grid.shares:
            yield from _codes(W, _first_step(matrix, stage, share), Setting("code", stage.spec, share), grid)
    generator = np.random.default_rng(np.random.SeedSequence(tuple(seed)))
    shuffled = _Matrix.of(generator.permutation(W.ravel()).reshape(W.shape))
    for stage in grid.stages:
        for share in grid.shares:
            step = _first_step(shuffled, stage, share)
            bits_taken = _plain_bits(step.charge + len(W) * step.n_components, step.side_bits)
            lost = max(0.0, shuffled.moments.energy - step.code.energy)
            yield Point(Setting("null", stage.spec, share), bits_taken, lost)


def add_up(matrices: Iterable[Sequence[Point]]) -> list[Point]:
    """Points of several matrices together: bits and errors of equal settings add."""
    totals: dict[Setting, tuple[float, float]] = {}
    for points in matrices:
        for point in points:
            bits, sse = totals.get(point.setting, (0.0, 0.0))
            totals[point.setting] = (bits + point.total_bits, sse + point.sse)
    return [Point(setting, bits, sse) for setting, (bits, sse) in totals.items()]


def front(points: Sequence[Point]) -> frozenset[Setting]:
    """Settings of codes that no other code beats: none loses less for as few bits."""
    codes = [point for point in points if point.setting.kind == "code"]
    best: list[Setting] = []
    least = math.inf
    for point in sorted(codes, key=lambda point: (point.total_bits, point.sse)):
        if point.sse < least:
            least = point.sse
            best.append(point.setting)
    return frozenset(best)


@dataclass(frozen=True, slots=True, eq=False)
class _Matrix:
    """Moments of a matrix's columns, with their spectrum about zero."""

    moments: CoordinateMoments
    spectrum: Spectrum

    @classmethod
    def of(cls, W: Array) -> _Matrix:
        moments = coordinate_moments(W)
        return cls(moments, moments.spectrum_about_zero())


def _first_step(matrix: _Matrix, stage: FixedStage | LearnedStage, share: float) -> Step:
    width = len(matrix.moments.mean)
    chosen = replace(stage, n_components=min(width, max(1, round(share * width))))
    if isinstance(chosen, SVDStage):
        return orthonormal_step(matrix.moments, matrix.spectrum.components[: chosen.n_components])
    return later_step(matrix.moments, chosen, "isometric", None)


def _codes(W: Array, first: Step, setting: Setting, grid: Grid) -> Iterator[Point]:
    """With and without a PCA of the code, rounded to each number of bits. Decoders are orthonormal: losses add."""
    code = W @ first.encoder
    outside = max(0.0, float(np.vdot(W, W) - np.vdot(code, code)))
    for threshold in grid.thresholds:
        charge, scores, lost = first.charge, code, outside
        if threshold is not None:
            step = later_step(first.code, PCAStage(threshold), "isometric", None)
            charge += step.charge
            scores = (code - step.mean) @ step.encoder
            lost += max(0.0, float(np.trace(first.code.scatter) - np.vdot(scores, scores)))
        for bits in grid.bits:
            there = replace(setting, threshold=threshold, bits=bits)
            if bits is None:
                yield Point(there, _plain_bits(charge + scores.size, first.side_bits), lost)
                continue
            quantized = quantize(scores, bits)
            beside = _plain_bits(charge + 2 * scores.shape[1], first.side_bits)
            rounding = float(np.sum((scores - quantized.values()) ** 2))
            yield Point(there, beside + code_bits(quantized), lost + rounding)


def _low_rank(matrix: _Matrix, grid: Grid) -> Iterator[Point]:
    """The best factors of each budget, 16 bits a number (Eckart & Young 1936)."""
    rows, width = matrix.moments.rows, len(matrix.moments.mean)
    kept = np.concatenate([[0.0], np.cumsum(matrix.spectrum.eigenvalues)])
    for budget in grid.budgets:
        rank = min(rows, width, int(budget * rows * width / (BITS_PER_PARAMETER * (rows + width))))
        lost = max(0.0, matrix.moments.energy - float(kept[rank]))
        yield Point(
            Setting("reference", f"{TRUNCATED}, {budget:.3g} bits"), _plain_bits(rank * (rows + width)), lost
        )


def _to_nearest(W: Array, bits: int) -> Point:
    """Round the weights themselves: groups of 128 in a row share a scale and an offset of 16 bits each."""
    width = W.shape[1]
    sse, groups = 0.0, 0
    for start in range(0, width, _GROUP):
        block = W[:, start : start + _GROUP]
        low, high = block.min(axis=1, keepdims=True), block.max(axis=1, keepdims=True)
        step = (high - low) / (2**bits - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            rounded = np.where(step > 0, low + step * np.rint((block - low) / step), block)
        sse += float(np.sum((block - rounded) ** 2))
        groups += len(W)
    return Point(
        Setting("reference", f"round to nearest int{bits}"), W.size * bits + _plain_bits(2 * groups), sse
    )


def _plain_bits(numbers: int, side_bits: float = 0.0) -> float:
    return BITS_PER_PARAMETER * numbers + side_bits
