"""Uniform quantization of codes, and what the quantized codes take when they are coded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array

MOST_BITS = 16
_ROWS_TRIED = 1024
# Numbers that are worked on at once.
_TOGETHER = 1 << 14
# Shares of the farthest value's distance that the outermost step may be drawn in to, by thirds of an octave.
_DRAWN_IN = 2.0 ** (-np.arange(16) / 3)


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """Codes rounded to one of 2^bits evenly spaced values, component by component.

    Attributes
    ----------
    levels : ndarray of shape (n, m), int32
        Which value, from 0 to 2^bits - 1.
    offset, step : ndarray of shape (m,), float64
        Value 0 of each component, and the distance of neighbours.
    bits : int
    """

    levels: NDArray[np.int32]
    offset: Array
    step: Array
    bits: int

    def values(self) -> Array:
        """The values that the codes were rounded to, shape (n, m)."""
        return np.asarray(self.offset + self.step * self.levels)


def quantize(codes: Array, bits: int) -> Quantized:
    """Round each component to 2^bits evenly spaced values about its mean.

    How far out the values reach is tried in 16 steps, from the farthest code down to 1/32 of it, and the one
    that loses the least in sum of squares is kept, so that one outlier does not coarsen all the others: what
    lies beyond the reach is known for all rows, what rounding loses within is tried on at most 2,047 of them.

    Parameters
    ----------
    codes : ndarray of shape (n, m), float64
    bits : int
        1 to 16.
    """
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"bits must be from 1 to {MOST_BITS}, not {bits}")
    return next(quantize_each(codes, [bits]))


def quantize_each(codes: Array, bits: Iterable[int]) -> Iterator[Quantized]:
    """Round codes to each of several numbers of bits, as `quantize` does, for less work together."""
    mean = codes.mean(axis=0)
    farthest = np.abs(codes - mean).max(axis=0)
    reaches = np.multiply.outer(_DRAWN_IN, farthest)
    beyond = _beyond(codes, mean, reaches)
    some = codes[:: max(1, len(codes) // _ROWS_TRIED)]
    weight = len(codes) / len(some)
    for one in bits:
        steps = 2 * reaches / (2**one - 1)
        lost = weight * _rounding(some, mean, reaches, steps) + beyond
        best = np.argmin(lost, axis=0)[None, :]
        reach, step = (np.take_along_axis(tried, best, axis=0)[0] for tried in (reaches, steps))
        chosen = _Grid(mean - reach, step, one)
        yield Quantized(chosen.nearest(codes).astype(np.int32), chosen.offset, step, one)


def _beyond(codes: Array, mean: Array, reaches: Array) -> Array:
    """Sum of squares by which components pass each reach, shape (16, m)."""
    lost = np.zeros_like(reaches)
    for part, some in _parts(codes):
        distances = np.abs(some - mean[part, None])
        passed = np.empty_like(distances)
        for trial, reach in enumerate(reaches[:, part, None]):
            np.subtract(distances, reach, out=passed)
            np.maximum(passed, 0.0, out=passed)
            lost[trial, part] += np.vecdot(passed, passed)
    return lost


def _rounding(codes: Array, mean: Array, reaches: Array, steps: Array) -> Array:
    """Sum of squares that rounding loses of what is within each reach, shape (16, m)."""
    lost = np.zeros_like(reaches)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(steps >= np.finfo(np.float64).tiny, 1 / steps, 0.0)
    for part, some in _parts(codes):
        centred = some - mean[part, None]
        rounded, within = np.empty_like(centred), np.empty_like(centred)
        tried = zip(reaches[:, part, None], steps[:, part], inverse[:, part, None], strict=True)
        for trial, (reach, step, per_step) in enumerate(tried):
            np.minimum(centred, reach, out=within)
            np.maximum(within, -reach, out=within)
            within += reach
            within *= per_step
            np.rint(within, out=rounded)
            within -= rounded
            lost[trial, part] += np.vecdot(within, within) * step**2
    return lost


def _parts(codes: Array) -> Iterator[tuple[slice, Array]]:
    """Some rows of some components at a time, components first, so few that they stay in a core's cache."""
    rows, components = min(len(codes), _TOGETHER), max(1, _TOGETHER // len(codes))
    for first in range(0, codes.shape[1], components):
        part = slice(first, first + components)
        for start in range(0, len(codes), rows):
            yield part, np.ascontiguousarray(codes[start : start + rows, part].T)


def code_bits(quantized: Quantized) -> float:
    """Bits that the levels take in an adaptive code of each component, tables and all.

    The Krichevsky-Trofimov code (1981): each level is coded by how often it came before, beginning with half
    a count each, so a decoder needs no table. That is the components' empirical entropies plus about
    (2^bits - 1) / 2 * log2(n) each; where that is more than `bits` a level, plain levels are sent instead (one
    bit says which).
    """
    from scipy.special import gammaln

    (rows, components), count = quantized.levels.shape, 2**quantized.bits
    together = max(1, _TOGETHER // max(rows, count))
    total = 0.0
    for first in range(0, components, together):
        levels = quantized.levels[:, first : first + together]
        apart = count * np.arange(levels.shape[1])
        seen = np.bincount((levels + apart).ravel(), minlength=count * len(apart)).reshape(-1, count)
        nats = (
            gammaln(rows + count / 2)
            - gammaln(count / 2)
            - np.sum(gammaln(seen + 0.5) - gammaln(0.5), axis=1)
        )
        total += float(np.sum(1 + np.minimum(nats / math.log(2), float(rows * quantized.bits))))
    return total


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    offset: Array
    step: Array
    bits: int

    def nearest(self, codes: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            places = np.where(self.step > 0, (codes - self.offset) / self.step, 0.0)
        return np.asarray(np.clip(np.rint(places), 0, 2**self.bits - 1))

    def values(self, levels: Array) -> Array:
        return np.asarray(self.offset + self.step * levels)
