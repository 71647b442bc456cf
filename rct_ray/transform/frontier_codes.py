"""Every code of one basis on one matrix: K, a PCA of the code or none, rounded or not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.climb import later_step
from rct_ray.transform.frontier_grid import (
    Grid,
    Kind,
    Matrix,
    Point,
    Setting,
    components_of,
    nested,
    plain_bits,
)
from rct_ray.transform.moments import CoordinateMoments
from rct_ray.transform.quantize import code_bits, quantize_each
from rct_ray.transform.stages import FixedStage, LearnedStage, PCAStage, SVDStage

# Components that are coded at once, which bounds the memory a code takes.
_AT_ONCE = 64


def code_points(matrix: Matrix, stage: FixedStage | LearnedStage, grid: Grid, kind: Kind) -> Iterator[Point]:
    """Points of a basis; errors of rounding are those of really rounded codes.

    All decoders are orthonormal, so what the basis, the PCA and the rounding lose adds up.
    """
    shares = grid.shares_of(stage)
    for together in [shares] if nested(stage) else [(share,) for share in shares]:
        counts = {share: components_of(share, matrix.shape[1]) for share in together}
        first = _First.of(matrix, stage, max(counts.values()))
        if None in grid.thresholds:
            codes = _Codes.of(matrix.W, first.encoder, None, list(counts.values()), grid.bits)
            for share, count in counts.items():
                setting, lost = Setting(kind, stage.spec, share), matrix.energy - codes.squares(count)
                yield from codes.points(setting, count, first.charge(count), first.side_bits, lost)
        yield from _principal(matrix, first, {share: counts[share] for share in together if share < 1},
                              Setting(kind, stage.spec), grid)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _First:
    """A basis of which the first so many components may be taken: its encoder, and what it is charged."""

    encoder: Array
    charge_each: int
    charge_beside: int
    side_bits: float

    @classmethod
    def of(cls, matrix: Matrix, stage: FixedStage | LearnedStage, count: int) -> _First:
        width = matrix.shape[1]
        chosen = replace(stage, n_components=count)
        if isinstance(chosen, FixedStage):
            return cls(chosen.basis(width).frame, 0, 0, 0.0)
        if isinstance(chosen, SVDStage):
            return cls(matrix.spectrum.components[:count].T, width, 0, 0.0)
        step = later_step(matrix.moments, chosen, "isometric", None)
        return cls(step.encoder, 0, step.charge, step.side_bits)

    def charge(self, count: int) -> int:
        """Parameters of the first `count` components."""
        return self.charge_each * count + self.charge_beside


def _principal(
    matrix: Matrix, first: _First, shares: Mapping[float, int], setting: Setting, grid: Grid
) -> Iterator[Point]:
    """A PCA of each code: scores of the highest threshold hold those of the others."""
    thresholds = [threshold for threshold in grid.thresholds if threshold is not None]
    if not thresholds or not shares:
        return
    largest = matrix.moments.mapped(first.encoder[:, : max(shares.values())])
    for share, size in shares.items():
        code = CoordinateMoments(largest.rows, largest.mean[:size], largest.scatter[:size, :size])
        pca = later_step(code, PCAStage(1.0), "isometric", None)
        kept = {
            one: later_step(pca.code, PCAStage(one), "isometric", None).n_components for one in thresholds
        }
        principal = pca.encoder[:, : max(kept.values())]
        encoder = first.encoder[:, :size] @ principal
        scores = _Codes.of(matrix.W, encoder, pca.mean @ principal, list(kept.values()), grid.bits)
        outside, spread = max(0.0, matrix.energy - code.energy), float(np.trace(code.scatter))
        for threshold, count in kept.items():
            there = replace(setting, share=share, threshold=threshold)
            lost = outside + max(0.0, spread - scores.squares(count))
            charge = first.charge(size) + size * (count + 1)
            yield from scores.points(there, count, charge, first.side_bits, lost)


@dataclass(frozen=True, slots=True, eq=False)
class _Codes:
    """Codes of the rows, summed up: what the first so many components hold, lose by rounding, and take coded.

    Attributes
    ----------
    rows : int
    held : dict of int to float
        Sum of squares of the first so many components.
    rounded : dict of (int, int) to (float, float)
        Of so many components rounded to so many bits: bits that they take, sum of squares lost.
    bits : tuple of (int or None)
    """

    rows: int
    held: dict[int, float]
    rounded: dict[tuple[int, int], tuple[float, float]]
    bits: tuple[int | None, ...]

    @classmethod
    def of(
        cls, W: Array, encoder: Array, mean: Array | None, counts: Sequence[int], bits: tuple[int | None, ...]
    ) -> _Codes:
        rounding = [one for one in bits if one is not None]
        held: dict[int, float] = {}
        rounded: dict[tuple[int, int], tuple[float, float]] = {}
        squares, taken, lost = 0.0, dict.fromkeys(rounding, 0.0), dict.fromkeys(rounding, 0.0)
        for start, stop in _pieces(counts):
            codes = W @ encoder[:, start:stop]
            if mean is not None:
                codes -= mean[start:stop]
            squares += float(np.vdot(codes, codes))
            for one, quantized in zip(rounding, quantize_each(codes, rounding), strict=True):
                taken[one] += code_bits(quantized)
                lost[one] += float(np.sum((codes - quantized.values()) ** 2))
            held[stop] = squares
            rounded.update({(stop, one): (taken[one], lost[one]) for one in rounding})
        return cls(len(W), held, rounded, bits)

    def squares(self, count: int) -> float:
        """Sum of squares of the first `count` components."""
        return self.held[count]

    def points(
        self, setting: Setting, count: int, charge: int, side_bits: float, lost: float
    ) -> Iterator[Point]:
        """Of the first `count` components: as floats, and rounded, which takes an offset and a step each."""
        lost = max(0.0, lost)
        for bits in self.bits:
            there = replace(setting, bits=bits)
            if bits is None:
                yield Point(there, plain_bits(charge + self.rows * count, side_bits), lost)
            else:
                taken, rounding = self.rounded[count, bits]
                yield Point(there, plain_bits(charge + 2 * count, side_bits) + taken, lost + rounding)


def _pieces(counts: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ranges of components that end at every count and are not long."""
    ends = sorted({0, *counts})
    for start, stop in itertools.pairwise(ends):
        cuts = [*range(start, stop, _AT_ONCE), stop]
        yield from itertools.pairwise(cuts)
