"""Codes that are learned from the rows' second moments, by one matrix or by all of a width together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rct_ray.transform.affine_code import Metric, Step, Summed
from rct_ray.transform.basis import Array
from rct_ray.transform.moments import WeightMoments
from rct_ray.transform.noise import noise_coordinates
from rct_ray.transform.spectrum import eigendecomposition
from rct_ray.transform.stages import LearnedStage, SVDStage


@dataclass(frozen=True, slots=True, eq=False)
class FoundTogether:
    """First steps of a matrix and of its null that were searched for together with those of others.

    `null` is what the null was searched on, and `generator` has drawn it and nothing since.
    """

    of_weights: Step
    of_null: Step
    null: Summed
    generator: np.random.Generator


@dataclass(frozen=True, slots=True, eq=False)
class SharedBasis:
    """A basis that several matrices of one width have in common.

    Attributes
    ----------
    components : ndarray of shape (K, d), float64
        Orthonormal.
    weights : WeightMoments
        Of all the matrices.
    rows : int
        Of all the matrices; each is charged its share of the basis by its rows.
    """

    components: Array
    weights: WeightMoments
    rows: int

    def charge(self, rows: int) -> int:
        """Parameters that some of the rows pay for."""
        return math.ceil(self.components.size * rows / self.rows)

    def on_noise(self, noise: Summed, generator: np.random.Generator) -> SharedBasis:
        """The same of noise, of which `noise` is one matrix: the search that the null goes through."""
        second = noise.second_moment
        if self.rows > noise.rows:
            width = len(noise.mean)
            rest = noise_coordinates(self.weights, self.rows - noise.rows, None, width, generator)
            second = second + rest.second_moment
        leading = eigendecomposition(second).components[: len(self.components)]
        return SharedBasis(leading, self.weights, self.rows)


def share_basis(stage: SVDStage, weights: WeightMoments, columns: Summed) -> SharedBasis:
    """The leading right singular vectors of all rows of a width, about zero.

    Parameters
    ----------
    stage : SVDStage
    weights, columns
        Moments of all the rows, and of their columns.
    """
    count = min(stage.components_for(len(columns.mean)), len(columns.mean))
    return SharedBasis(columns.spectrum_about_zero().components[:count], weights, columns.rows)


def shared_step(below: Summed, shared: SharedBasis) -> Step:
    """Code rows in a basis that was learned from more than these."""
    return orthonormal_step(below, shared.components, shared.charge(below.rows))


def learned_step(below: Summed, stage: LearnedStage, metric: Metric = "isometric") -> Step:
    """Learn a code from the rows' moments.

    Parameters
    ----------
    below : CoordinateMoments or CoordinateFactors
        Of the rows, about zero where the code has no mean.
    stage : LearnedStage
    metric : {"isometric", "amplitude"}
        For stages whose functions are not orthonormal.
    """
    count = min(stage.components_for(len(below.mean)), len(below.mean))
    if isinstance(stage, SVDStage):
        components = below.spectrum_about_zero().components[:count]
        return orthonormal_step(below, components)
    raise TypeError(f"{stage.spec} is learned by no rule known here")


def orthonormal_step(
    below: Summed, components: Array, charge: int | None = None, side_bits: float = 0.0
) -> Step:
    """Coordinates in orthonormal components, shape (K, m); charged all their entries unless said."""
    encoder = components.T
    mean = np.zeros(len(below.mean))
    charged = components.size if charge is None else charge
    return Step(encoder, components, mean, charged, below.mapped(encoder), side_bits=side_bits)
