"""What every choice of code keeps of one matrix, and for how many bits: the points of a frontier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.frontier_codes import code_points
from rct_ray.transform.frontier_grid import Grid, Matrix, Point, Setting
from rct_ray.transform.frontier_references import low_rank, to_nearest

__all__ = ["Grid", "Point", "Setting", "add_up", "front", "frontier_points"]


def frontier_points(W: Array, grid: Grid, seed: Sequence[int]) -> Iterator[Point]:
    """Every point of one matrix, from rows in hand.

    Parameters
    ----------
    W : ndarray of shape (n, d), float64
    grid : Grid
    seed : sequence of int
        Of the shuffle.
    """
    matrix = Matrix.of(W)
    yield from low_rank(matrix, grid.budgets)
    for bits in grid.rounding:
        yield to_nearest(W, bits)
    for stage in grid.stages:
        yield from code_points(matrix, stage, grid, "code")
    del matrix
    generator = np.random.default_rng(np.random.SeedSequence(tuple(seed)))
    shuffled = Matrix.of(generator.permutation(W.reshape(-1)).reshape(W.shape))
    plain = replace(grid, thresholds=(None,))
    for stage in grid.stages:
        yield from code_points(shuffled, stage, plain, "null")


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
