"""Gaussians along columns that were put in order, or at centres and widths that were fitted: from H = W^T W."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rct_ray.transform.affine_code import Metric, Step, Summed
from rct_ray.transform.basis import Array, Basis, gaussians_at, orthonormalise
from rct_ray.transform.ordering import Placing, place_columns
from rct_ray.transform.shared_gaussians import fit_shared
from rct_ray.transform.stages import PlacedGaussianStage


def placed_steps(
    below: Sequence[Summed], stage: PlacedGaussianStage, metric: Metric, seed: Sequence[int] = (0,)
) -> list[Step]:
    """Learn the code of some matrices of one width, each for itself; weights and their null go together.

    Parameters
    ----------
    below : sequence of CoordinateMoments or CoordinateFactors
        Of the rows; energy is kept about zero.
    stage : PlacedGaussianStage
        More components than there are columns are cut down to these.
    metric : {"isometric", "amplitude"}
    seed : sequence of int
        Of the search for an order.
    """
    width = len(below[0].mean)
    count = min(stage.components_for(width), width)
    along = PlacedGaussianStage(count, stage.relative_width).basis(width)
    second = [one.second_moment for one in below]
    placings = place_columns(second, along.frame, stage.order, signed=stage.signed, seed=seed)
    return [
        _step(one, moments, placing, along, stage, metric)
        for one, moments, placing in zip(below, second, placings, strict=True)
    ]


def _step(
    below: Summed, second: Array, placing: Placing, along: Basis, stage: PlacedGaussianStage, metric: Metric
) -> Step:
    beside: list[tuple[str, Array]] = []
    charge = 0
    if stage.order != "none":
        beside += [("places", placing.places.astype(np.float64)[None, :]), ("signs", placing.signs[None, :])]
    if stage.fit == "shared":
        centres, widths = fit_shared(
            placing.moments(second), len(along.mixing), relative_width=stage.relative_width
        )
        along = orthonormalise(gaussians_at(len(second), centres, widths))
        charge = len(centres) + len(widths)
        beside += [("centres", centres[None, :]), ("widths", widths[None, :])]
    side_bits = placing.side_bits if stage.order != "none" else 0.0
    decoder = placing.functions(along.frame.T)
    encoder = decoder.T
    if metric == "amplitude":
        encoder, decoder = encoder @ along.unmixing(), placing.functions(along.functions)
    return Step(
        encoder,
        decoder,
        np.zeros(len(second)),
        charge,
        below.mapped(encoder),
        side_bits=side_bits,
        beside=tuple(beside),
    )
