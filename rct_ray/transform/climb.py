"""Climb a tower on moments alone: codes, what they charge and what they lose, level by level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from rct_ray.transform.affine_code import AffineCode, Metric, Step, Summed
from rct_ray.transform.basis import Basis
from rct_ray.transform.learned import learned_step
from rct_ray.transform.moments import ScoreMoments
from rct_ray.transform.placed import placed_steps
from rct_ray.transform.rung import Rung
from rct_ray.transform.spectrum import Spectrum, components_needed, participation_ratio
from rct_ray.transform.stages import FixedStage, LearnedStage, PCAStage, PlacedGaussianStage, Stage

# A scatter below this share of the energy is rounding: float64 squares of what should have been zero.
_ROUNDING = 1e-26


def climb(
    base: Summed,
    outside: float,
    stages: Sequence[Stage],
    basis: Basis | None,
    metric: Metric = "isometric",
    kept: Sequence[int] | None = None,
    *,
    ground: bool = True,
    first: Step | None = None,
) -> list[Rung]:
    """Climb a tower from the moments of its first orthonormal coordinates.

    Parameters
    ----------
    base : CoordinateMoments or CoordinateFactors
        Of the isometric amplitudes B = W Q if the first stage is a fixed basis, else of the columns of W.
    outside : float
        Sum of squares of W that `base` does not hold: ||W||^2 - ||B||^2, or 0 for the columns.
    stages : sequence of Stage
    basis : Basis or None
        The first stage's, if it is a fixed one.
    metric : {"isometric", "amplitude"}
        Coordinates that later stages see: orthonormal ones, or the least-squares amplitudes of the functions.
    kept : sequence of int, optional
        Components to keep at each level, instead of what the thresholds say (a null at equal charge).
    ground : bool
        Whether the level below the first stage is the weights themselves, with what is outside.
    first : Step, optional
        The first stage's, where it was learned together with others.

    Returns
    -------
    list of Rung
        One a stage. SSE follows from moments alone: what is outside the base, plus what coding and decoding
        loses of the base (`AffineCode.lost`; in the isometric metric, the eigenvalues that were dropped).
    """
    if not stages:
        return []
    first = first or _first_step(base, stages[0], basis, metric, kept)
    steps = [first, *_later_steps(first.code, stages[1:], metric, kept)]
    losses = _losses_that_add(base, steps) if metric == "isometric" else _losses(base, steps)
    rungs: list[Rung] = []
    below, charged, side_bits = base, 0, 0.0
    for level, (stage, step, (lost, lost_of_below)) in enumerate(zip(stages, steps, losses, strict=True)):
        charged += step.charge
        side_bits += step.side_bits
        sse = outside + lost
        if level == 0 and ground:
            sse_prev, sst_prev = sse, outside + base.energy
        else:
            sse_prev, sst_prev = lost_of_below, below.energy
        params = base.rows * step.n_components + charged
        rungs.append(Rung(stage, step, params, side_bits, sse, sse_prev, sst_prev))
        below = step.code
    return rungs


def _losses_that_add(base: Summed, steps: Sequence[Step]) -> Iterator[tuple[float, float]]:
    """Sums of squares that each step loses, of the base and of the level below, if all are orthonormal.

    What a step loses is then orthogonal to what is lost later, so losses add; and it is the energy that the
    code lacks (about the mean, if the step keeps that).
    """
    lost, below = 0.0, base
    for step in steps:
        if step.mean.any():
            own = float(np.trace(below.scatter) - np.trace(step.code.scatter))
        else:
            own = below.energy - step.code.energy
        own = max(0.0, own)
        lost += own
        yield lost, own
        below = step.code


def _losses(base: Summed, steps: Sequence[Step]) -> Iterator[tuple[float, float]]:
    """Sums of squares that each step loses, of the base and of the level below, whatever the steps are."""
    code, below = AffineCode.of_frame(np.eye(len(base.mean))), base
    for step in steps:
        code = code.then(step)
        alone = AffineCode.of_frame(np.eye(len(below.mean))).then(step)
        yield code.lost(base), alone.lost(below)
        below = step.code


def _first_step(
    base: Summed,
    stage: Stage,
    basis: Basis | None,
    metric: Metric,
    kept: Sequence[int] | None,
) -> Step:
    if not isinstance(stage, FixedStage):
        return later_step(base, stage, metric, kept[0] if kept else None)
    if basis is None:
        raise ValueError("a fixed first stage needs its basis")
    size = len(base.mean)
    if metric == "isometric":
        return Step(np.eye(size), np.eye(size), np.zeros(size), 0, base)
    encoder, decoder = basis.unmixing(), basis.mixing.T
    return Step(encoder, decoder, np.zeros(size), 0, base.mapped(encoder))


def _later_steps(
    code: Summed, stages: Sequence[Stage], metric: Metric, kept: Sequence[int] | None
) -> Iterator[Step]:
    for level, stage in enumerate(stages, start=1):
        step = later_step(code, stage, metric, kept[level] if kept else None)
        yield step
        code = step.code


def later_step(below: Summed, stage: Stage, metric: Metric, kept: int | None) -> Step:
    """One stage on a code, from its moments; `kept` overrides how many components a PCA keeps."""
    if isinstance(stage, PCAStage):
        return _pca_step(below, stage.threshold, kept)
    if isinstance(stage, PlacedGaussianStage):
        return placed_steps([below], stage, metric)[0]
    if isinstance(stage, LearnedStage):
        return learned_step(below, stage, metric)
    if not isinstance(stage, FixedStage):
        raise TypeError(f"{stage.spec} needs rows, not their moments")
    # How many components arrive here is only known now, so a later stage takes as many as there are.
    count = min(stage.components_for(len(below.mean)), len(below.mean))
    basis = replace(stage, n_components=count).basis(len(below.mean))
    if metric == "amplitude":
        encoder, decoder = basis.frame @ basis.unmixing(), basis.functions
    else:
        encoder, decoder = basis.frame, basis.frame.T
    return Step(encoder, decoder, np.zeros(len(below.mean)), 0, below.mapped(encoder))


def _pca_step(below: Summed, threshold: float, kept: int | None) -> Step:
    spectrum = below.spectrum()
    if spectrum.eigenvalues.sum() <= _ROUNDING * below.energy:
        # Rows all alike: what is left about their mean is rounding, and has no components.
        spectrum = Spectrum(np.zeros_like(spectrum.eigenvalues), spectrum.components)
    count = kept or components_needed(spectrum.eigenvalues, threshold)
    decoder = spectrum.components[:count]
    code = ScoreMoments(below.rows, np.zeros(count), np.diag(spectrum.eigenvalues[:count]))
    charge = decoder.size + len(below.mean)
    ratio = participation_ratio(np.diag(spectrum.eigenvalues))
    return Step(decoder.T, decoder, below.mean, charge, code, ratio)
