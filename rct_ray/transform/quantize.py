"""Uniform quantization of codes, and what the quantized codes take when they are coded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array

MOST_BITS = 16
_ROWS_TRIED = 1024
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
    mean, some = codes.mean(axis=0), codes[:: max(1, len(codes) // _ROWS_TRIED)]
    distances = np.sort(np.abs(codes - mean), axis=0)
    best = np.full(codes.shape[1], np.inf)
    offset, step = mean.copy(), np.zeros_like(mean)
    for share in _DRAWN_IN:
        reach = share * distances[-1]
        trial = _Grid(mean - reach, 2 * reach / (2**bits - 1), bits)
        within = np.clip(some, mean - reach, mean + reach)
        rounding = np.sum((within - trial.values(trial.nearest(within))) ** 2, axis=0)
        lost = rounding * (len(codes) / len(some)) + _beyond(distances, reach)
        better = lost < best
        best = np.where(better, lost, best)
        offset, step = np.where(better, trial.offset, offset), np.where(better, trial.step, step)
    chosen = _Grid(offset, step, bits)
    return Quantized(chosen.nearest(codes).astype(np.int32), offset, step, bits)


def _beyond(distances: Array, reach: Array) -> Array:
    """Sum of squares by which ascending distances, shape (n, m), pass the reach of each component."""
    lost = np.zeros(len(reach))
    for component, (column, far) in enumerate(zip(distances.T, reach, strict=True)):
        lost[component] = np.sum((column[np.searchsorted(column, far) :] - far) ** 2)
    return lost


def code_bits(quantized: Quantized) -> float:
    """Bits that the levels take in an adaptive code of each component, tables and all.

    The Krichevsky-Trofimov code (1981): each level is coded by how often it came before, beginning with half
    a count each, so a decoder needs no table. That is the components' empirical entropies plus about
    (2^bits - 1) / 2 * log2(n) each; where that is more than `bits` a level, plain levels are sent instead (one
    bit says which).
    """
    from scipy.special import gammaln

    rows, count = len(quantized.levels), 2**quantized.bits
    total = 0.0
    for component in quantized.levels.T:
        seen = np.bincount(component, minlength=count)
        seen = seen[seen > 0]
        nats = gammaln(rows + count / 2) - gammaln(count / 2) - np.sum(gammaln(seen + 0.5) - gammaln(0.5))
        total += 1 + min(float(nats) / math.log(2), float(rows * quantized.bits))
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
