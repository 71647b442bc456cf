"""The tower of one scope: every figure of every level, beside its null."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rct_ray.transform.affine_code import Metric, Step, Summed
from rct_ray.transform.basis import Array, Basis
from rct_ray.transform.climb import climb
from rct_ray.transform.code_length import svd_bound
from rct_ray.transform.gathered import GatheredRows
from rct_ray.transform.leading import LeadingMoments, climb_leading
from rct_ray.transform.learned import FoundTogether, SharedBasis, shared_step
from rct_ray.transform.level import Level, mark_fixed_point
from rct_ray.transform.moments import CoordinateMoments, RowMoments, WeightMoments
from rct_ray.transform.noise import noise_coordinates
from rct_ray.transform.placed import placed_steps
from rct_ray.transform.randomized import ColumnMoments
from rct_ray.transform.row_steps import Footing, climb_rows, rows_like
from rct_ray.transform.rung import RowStep, Rung
from rct_ray.transform.stages import FixedStage, PCAStage, PlacedGaussianStage, RowStage, Stage

if TYPE_CHECKING:
    from rct_ray.transform.moments import Coordinates


@dataclass(frozen=True, slots=True, eq=False)
class Ascent:
    """A tower climbed.

    Attributes
    ----------
    levels : list of Level
        Level 0 (the weights) first.
    rungs : list of Rung
        The steps above it, with their decoders.
    eigenvalues : ndarray of shape (d,), float64, or None
        Of W^T W, descending, where the columns' moments were kept.
    """

    levels: list[Level]
    rungs: list[Rung]
    eigenvalues: Array | None


def tower(
    moments: RowMoments,
    width: int,
    stages: Sequence[Stage],
    metric: Metric = "isometric",
    seed: Sequence[int] = (0,),
    basis: Basis | None = None,
    pca_method: str = "moments",
    shared: SharedBasis | FoundTogether | None = None,
) -> Ascent:
    """Every level of the tower over some rows, from their moments.

    Parameters
    ----------
    moments : RowMoments
        Of finite weights, with `projected` in the frame of the first stage if that is a fixed basis, else
        with `columns`. With `columns` the SVD bound is known too. With `shuffled` the null is measured on these
        weights with their entries shuffled, instead of on drawn noise.
    width : int
        d, columns of a row.
    stages : sequence of Stage
    metric : {"isometric", "amplitude"}
    seed : sequence of int
        Of the null's noise; levels draw nothing else.
    basis : Basis, optional
        The first stage's basis, if the caller has it already.
    pca_method : str
        How the moments came about, for the table.
    shared : SharedBasis or FoundTogether, optional
        Of the first stage, where it was learned from more rows than these, or with others (`place_together`).

    Returns
    -------
    Ascent
    """
    if isinstance(stages[0], FixedStage):
        basis, first = basis or stages[0].basis(width), moments.projected
    else:
        basis, first = None, moments.columns
    if first is None:
        raise ValueError("the moments that the first stage needs were not kept")
    base = summed(first)
    sst = moments.weights.energy
    outside = max(0.0, sst - base.energy) if basis else 0.0
    linear = _linear(stages)
    if isinstance(stages[0], PlacedGaussianStage) and shared is None:
        (shared,) = place_together([(moments, seed)], width, stages[0], metric)
    first_step: Step | None = None
    first_of_noise: Step | None = None
    if isinstance(shared, FoundTogether):
        noise, generator = shared.null, shared.generator
        first_step, first_of_noise = shared.of_weights, shared.of_null
    else:
        noise, generator = _noise(moments, base.rows, width, basis, seed)
        if shared is not None:
            first_step = shared_step(base, shared)
            first_of_noise = shared_step(noise, shared.on_noise(noise, generator))
    rungs = climb(base, outside, linear, basis, metric, first=first_step)
    if len(linear) < len(stages):
        if not isinstance(first, GatheredRows):
            raise ValueError("the rows that some stage needs were not kept")
        start = Footing.of(rungs, base, outside, metric)
        rungs += climb_rows(start.rows(first.stacked()), start, rungs, stages[len(linear) :], metric)
    null_rungs = _null(moments.weights, noise, stages, metric, basis, rungs, first_of_noise, generator)
    eigenvalues = None if moments.columns is None else _descending_eigenvalues(summed(moments.columns))
    levels = [_ground(moments.weights, base.rows, width, eigenvalues)]
    for rung, null in zip(rungs, null_rungs, strict=True):
        levels.append(_level(levels[-1], levels[0], rung, null, eigenvalues, pca_method))
    return Ascent(mark_fixed_point(levels), rungs, eigenvalues)


def wide_tower(weights: WeightMoments, base: LeadingMoments, width: int, stages: Sequence[Stage]) -> Ascent:
    """Every level of the tower over rows whose scatter is too wide to form.

    Isometric; without nulls and without the SVD bound, which need such a scatter, and without the
    participation ratio of the first PCA's input.

    Parameters
    ----------
    weights : WeightMoments
    base : LeadingMoments
        Of the first orthonormal coordinates.
    width : int
        d, columns of a row.
    stages : sequence of Stage
    """
    outside = max(0.0, weights.energy - base.energy) if isinstance(stages[0], FixedStage) else 0.0
    rungs = climb_leading(base, outside, stages)
    levels = [_ground(weights, base.rows, width, None)]
    for rung in rungs:
        levels.append(_level(levels[-1], levels[0], rung, None, None, "randomized"))
    return Ascent(mark_fixed_point(levels), rungs, None)


def noise_seed(seed: int, *names: str) -> tuple[int, ...]:
    """Seed of a scope's noise, from the run's seed and the scope's names (stable across processes)."""
    return (seed, *(zlib.crc32(name.encode()) for name in names))


def place_together(
    matrices: Sequence[tuple[RowMoments, Sequence[int]]],
    width: int,
    stage: PlacedGaussianStage,
    metric: Metric = "isometric",
) -> list[FoundTogether]:
    """First steps of several matrices of one width and of their nulls; those that `tower` finds one by one.

    Parameters
    ----------
    matrices : sequence of (RowMoments, seed)
        With `columns`; and the seed that `tower` will be given.
    width : int
    stage : PlacedGaussianStage
    metric : {"isometric", "amplitude"}
    """
    below: list[Summed] = []
    generators = []
    for moments, seed in matrices:
        if moments.columns is None:
            raise ValueError("the moments that the first stage needs were not kept")
        base = summed(moments.columns)
        noise, generator = _noise(moments, base.rows, width, None, seed)
        below += [base, noise]
        generators.append(generator)
    steps = placed_steps(below, stage, metric, matrices[0][1][:1])
    return [
        FoundTogether(*found) for found in zip(steps[::2], steps[1::2], below[1::2], generators, strict=True)
    ]


def _noise(
    moments: RowMoments, rows: int, width: int, basis: Basis | None, seed: Sequence[int]
) -> tuple[Summed, np.random.Generator]:
    """What the null is measured on, in the coordinates that the tower starts from; and who drew it."""
    generator = np.random.default_rng(np.random.SeedSequence(tuple(seed)))
    if moments.shuffled is not None:
        known = moments.shuffled.projected if basis else moments.shuffled.columns
        if known is not None:
            return summed(known), generator
    frame = basis.frame if basis else None
    return noise_coordinates(moments.weights, rows, frame, width, generator), generator


def _null(
    weights: WeightMoments,
    noise: Summed,
    stages: Sequence[Stage],
    metric: Metric,
    basis: Basis | None,
    rungs: Sequence[Rung],
    first: Step | None,
    generator: np.random.Generator,
) -> list[Rung]:
    """The same tower over noise, keeping as many components as the weights did: a null at equal charge."""
    outside = max(0.0, weights.energy - noise.energy) if basis else 0.0
    kept = [rung.step.n_components for rung in rungs]
    linear = _linear(stages)
    null = climb(noise, outside, linear, basis, metric, kept, first=first)
    if len(linear) < len(stages):
        start, rest = Footing.of(null, noise, outside, metric), len(linear)
        rows = rows_like(start.moments, generator)
        null += climb_rows(rows, start, null, stages[rest:], metric, kept[rest:])
    return null


def _linear(stages: Sequence[Stage]) -> Sequence[Stage]:
    """The stages before the first that needs rows."""
    return list(itertools.takewhile(lambda stage: not isinstance(stage, RowStage), stages))


def summed(coordinates: Coordinates) -> Summed:
    """Moments that can be decomposed, of coordinates that were kept in whatever way."""
    if isinstance(coordinates, ColumnMoments):
        raise TypeError("columns were summed one by one: see wide_tower")
    return coordinates.factors() if isinstance(coordinates, GatheredRows) else coordinates


def _descending_eigenvalues(columns: Summed) -> Array:
    """Of W^T W; without the eigenvectors where these are not had for nothing."""
    if isinstance(columns, CoordinateMoments):
        return np.asarray(np.maximum(np.linalg.eigvalsh(columns.second_moment)[::-1], 0.0))
    return columns.spectrum_about_zero().eigenvalues


def _ground(moments: WeightMoments, rows: int, width: int, eigenvalues: Array | None) -> Level:
    weights, sst = rows * width, moments.energy
    return Level(
        level=0,
        stage="weights",
        rows=rows,
        weights=weights,
        n_components=width,
        params=weights,
        side_bits=0.0,
        level_ratio=1.0,
        participation_ratio=None,
        n_keep=None,
        threshold=None,
        sse_prev=0.0,
        sst_prev=sst,
        sse=0.0,
        sst=sst,
        sst_centered=moments.squares,
        null_sse=0.0,
        null_sst=sst,
        null_participation_ratio=None,
        svd_kept=None if eigenvalues is None else svd_bound(eigenvalues, rows, weights),
        pca_method=None,
        incompressible=False,
    )


def _level(
    below: Level, ground: Level, rung: Rung, null: Rung | None, eigenvalues: Array | None, pca_method: str
) -> Level:
    step, is_pca = rung.step, isinstance(rung.stage, PCAStage)
    return replace(
        ground,
        level=below.level + 1,
        stage=rung.stage.spec,
        n_components=step.n_components,
        params=rung.params,
        side_bits=rung.side_bits,
        level_ratio=below.params / rung.params,
        participation_ratio=step.participation_ratio,
        n_keep=step.n_components if is_pca else None,
        threshold=rung.stage.threshold if isinstance(rung.stage, PCAStage) else None,
        sse_prev=rung.sse_prev,
        sst_prev=rung.sst_prev,
        sse=rung.sse,
        null_sse=None if null is None else null.sse,
        null_participation_ratio=None if null is None else null.step.participation_ratio,
        svd_kept=None if eigenvalues is None else svd_bound(eigenvalues, ground.rows, rung.params),
        pca_method=pca_method if is_pca else None,
        incompressible=isinstance(step, Step) and step.n_components >= below.n_components,
        code_bits=step.code_bits if isinstance(step, RowStep) else None,
        converged=step.converged if isinstance(step, RowStep) else None,
    )
