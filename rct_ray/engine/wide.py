"""Randomized SVD of levels too wide to square: more passes over the rows, in place of a K x K matrix."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rct_ray.checkpoint import RowReader
from rct_ray.engine.local_blocks import LocalBlocks
from rct_ray.engine.plan import Shard
from rct_ray.engine.resident import ResidentBlocks
from rct_ray.engine.row_passes import RowPasses, checked, describe
from rct_ray.transform.basis import Array
from rct_ray.transform.leading import LeadingMoments
from rct_ray.transform.randomized import spectrum_reaching
from rct_ray.transform.stages import FixedStage, Stage


class HasBlocks(Protocol):
    """An engine that can hold blocks of rows for several passes."""

    def blocks(self) -> LocalBlocks | ResidentBlocks:
        """A place for them; to be closed."""


def leading_moments(
    engine: HasBlocks, shards: Sequence[Shard], first: Stage, threshold: float, seed: int
) -> LeadingMoments:
    """Mean, total and leading spectrum of the coordinates of some shards.

    Parameters
    ----------
    engine : HasBlocks
        Ray's keeps the coordinates on its actors from pass to pass; in-process they are read again.
    shards : sequence of Shard
        Of one width.
    first : Stage
        Of the tower: a fixed basis, or anything else for the columns themselves.
    threshold : float
        Share of the variance to reach.
    seed : int
        Of the random subspace.
    """
    resident = engine.blocks()
    try:
        held = checked(resident.load([partial(coordinates, shard, first) for shard in shards], describe))
        passes = RowPasses(resident, held)
        passes.centre()
        spectrum = spectrum_reaching(passes, threshold, passes.total, seed=seed)
        return LeadingMoments(passes.rows, passes.mean, passes.total, spectrum)
    finally:
        resident.close()


def coordinates(shard: Shard, first: Stage) -> NDArray[Any]:
    """The isometric amplitudes of a shard's rows, or the rows themselves if the tower has no fixed basis."""
    entry = shard.entry
    rows = np.empty((shard.n_rows, entry.width), entry.value_dtype)
    with RowReader(entry) as reader:
        if shard.rows is None:
            reader.read(shard.start, shard.stop, rows)
        else:
            reader.read_rows(shard.rows, rows)
    return np.asarray(rows @ _frame(first, entry.width)) if isinstance(first, FixedStage) else rows


@lru_cache(maxsize=8)
def _frame(first: FixedStage, width: int) -> Array:
    return first.basis(width).frame
