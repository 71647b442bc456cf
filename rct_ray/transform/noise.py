"""Moments of structureless weights: independent normal entries of a given mean and variance.

Only the scatter of the noise is needed, never its rows: a Wishart matrix by Bartlett's decomposition (1933).
"""

from __future__ import annotations

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.moments import CoordinateMoments, WeightMoments


def wishart(size: int, freedom: int, generator: np.random.Generator) -> Array:
    """Scatter of `freedom` rows of `size` independent standard normals, shape (size, size).

    Bartlett: L L^T with L lower triangular, chi distributed diagonal, normals below. With fewer rows than
    columns the rows themselves are drawn.
    """
    if freedom < size:
        rows = generator.standard_normal((freedom, size))
        return np.asarray(rows.T @ rows)
    lower = np.tril(generator.standard_normal((size, size)), -1)
    np.fill_diagonal(lower, np.sqrt(generator.chisquare(freedom - np.arange(size))))
    return np.asarray(lower @ lower.T)


def noise_weights(like: WeightMoments) -> WeightMoments:
    """Moments of noise with the count, mean and variance of some weights (exactly these, not a draw)."""
    return WeightMoments(like.count, like.mean, like.squares)


def noise_coordinates(
    weights: WeightMoments, rows: int, frame: Array | None, width: int, generator: np.random.Generator
) -> CoordinateMoments:
    """Moments of noise rows in an orthonormal frame, or of the columns themselves if there is none.

    A draw of what the rows' mean strays from the expected one (the grand mean held) and of the scatter, Wishart
    with rows - 1 degrees of freedom, scaled to the energy expected of both, so that without a mean a fixed
    basis keeps exactly K/d.
    """
    direction = np.ones(width) if frame is None else frame.sum(axis=0)
    size = len(direction)
    mean = weights.mean * direction
    expected = weights.variance * rows * size
    if rows == 1:
        single = mean + np.sqrt(weights.variance) * generator.standard_normal(size)
        energy = float(single @ single)
        scale = np.sqrt((expected + float(mean @ mean)) / energy) if energy else 0.0
        return CoordinateMoments(1, single * scale, np.zeros((size, size)))
    scatter = wishart(size, rows - 1, generator)
    stray = generator.standard_normal(size) / np.sqrt(rows)
    stray -= direction * (direction @ stray) / (direction @ direction)
    scale = expected / (np.trace(scatter) + rows * float(stray @ stray))
    return CoordinateMoments(rows, mean + np.sqrt(scale) * stray, scatter * scale)
