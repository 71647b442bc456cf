"""What a frontier is held against: the best low rank, and the weights themselves rounded to nearest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.code_length import BITS_PER_PARAMETER
from rct_ray.transform.frontier_grid import Matrix, Point, Setting, plain_bits

TRUNCATED = "truncated SVD"
TO_NEAREST = "round to nearest"
# Weights that share a scale and an offset when they are rounded to nearest, as quantized checkpoints have it.
GROUP = 128


def low_rank(matrix: Matrix, budgets: tuple[float, ...]) -> Iterator[Point]:
    """The best factors of each budget of bits a weight, 16 bits a number (Eckart & Young 1936)."""
    rows, width = matrix.shape
    kept = np.concatenate([[0.0], np.cumsum(matrix.spectrum.eigenvalues)])
    for budget in budgets:
        rank = min(rows, width, int(budget * rows * width / (BITS_PER_PARAMETER * (rows + width))))
        lost = max(0.0, matrix.energy - float(kept[rank]))
        yield Point(Setting("reference", TRUNCATED, budget=budget), plain_bits(rank * (rows + width)), lost)


def to_nearest(W: Array, bits: int) -> Point:
    """Round the weights themselves: groups of 128 in a row share a scale and an offset of 16 bits each."""
    sse, groups = 0.0, 0
    for start in range(0, W.shape[1], GROUP):
        block = W[:, start : start + GROUP]
        low, high = block.min(axis=1, keepdims=True), block.max(axis=1, keepdims=True)
        step = (high - low) / (2**bits - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            rounded = np.where(step > 0, low + step * np.rint((block - low) / step), block)
        sse += float(np.sum((block - rounded) ** 2))
        groups += len(W)
    return Point(Setting("reference", TO_NEAREST, bits=bits), W.size * bits + plain_bits(2 * groups), sse)
