"""The figures of a tower's levels, and how the towers of several widths add up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rct_ray.transform.code_length import TARGET_R2, bits_per_weight


def kept_share(sse: float, sst: float) -> float:
    """R2 = 1 - SSE/SST; with nothing to explain 1 if nothing is lost, else 0 (as scikit-learn's r2_score)."""
    if sst > 0:
        return 1.0 - sse / sst
    return 1.0 if sse == 0 else 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """The figures of one level of a tower; see the column descriptions of the table `levels`."""

    level: int
    stage: str
    rows: int
    weights: int
    n_components: int
    params: int
    side_bits: float
    level_ratio: float
    participation_ratio: float | None
    n_keep: int | None
    threshold: float | None
    sse_prev: float
    sst_prev: float
    sse: float
    sst: float
    sst_centered: float
    null_sse: float | None
    null_sst: float | None
    null_participation_ratio: float | None
    svd_kept: float | None
    pca_method: str | None
    incompressible: bool
    fixed_point: bool = False
    code_bits: float | None = None
    converged: float | None = None

    @property
    def cumulative_ratio(self) -> float:
        """Weights over parameters."""
        return self.weights / self.params

    @property
    def r2_prev(self) -> float:
        """Share of the level below that is kept, about zero, in that level's own coordinates."""
        return kept_share(self.sse_prev, self.sst_prev)

    @property
    def r2(self) -> float:
        """Energy kept: SST about zero."""
        return kept_share(self.sse, self.sst)

    @property
    def r2_centered(self) -> float:
        """R2 with SST about the scope's grand mean."""
        return kept_share(self.sse, self.sst_centered)

    @property
    def null_r2(self) -> float | None:
        """What the same code keeps of weights with no structure."""
        if self.null_sse is None or self.null_sst is None:
            return None
        return kept_share(self.null_sse, self.null_sst)

    @property
    def lift(self) -> float | None:
        """(r2 - null_r2) / (1 - null_r2); None where the null keeps everything."""
        null = self.null_r2
        return None if null is None or null >= 1 else (self.r2 - null) / (1 - null)

    @property
    def svd_bound_r2(self) -> float | None:
        """Energy the best matrix of this level's size keeps."""
        return None if self.svd_kept is None else kept_share(max(0.0, self.sst - self.svd_kept), self.sst)

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise, 10 log10(SST/SSE), in decibels; inf where nothing is lost."""
        if self.sse == 0:
            return math.inf
        return 10 * math.log10(self.sst / self.sse) if self.sst > 0 else -math.inf

    @property
    def relative_error(self) -> float:
        """||W - decoded|| / ||W||."""
        return math.sqrt(self.sse / self.sst) if self.sst > 0 else 0.0

    @property
    def bits_per_weight(self) -> float:
        """Description length per weight at R2 = 0.99; level 0 codes the weights with no model at all."""
        if self.level == 0:
            return 0.5 * math.log2(1 / (1 - TARGET_R2))
        return bits_per_weight(self.weights, self.params, self.side_bits, self.sse, self.sst)


def mark_fixed_point(levels: Sequence[Level]) -> list[Level]:
    """Mark the first level whose successor does not charge fewer parameters, if there is one."""
    marked = list(levels)
    for index, successor in enumerate(levels[1:]):
        if successor.params >= levels[index].params:
            marked[index] = replace(levels[index], fixed_point=True)
            break
    return marked


def add_up(groups: Sequence[Sequence[Level]], squares_about_mean: float) -> list[Level]:
    """The model's tower: the width groups' levels added up.

    Parameters
    ----------
    groups : sequence of sequences of Level
        One tower a width, all of the same stages.
    squares_about_mean : float
        SST about the grand mean of all the weights.
    """
    summed: list[Level] = []
    for levels in zip(*groups, strict=True):
        params = sum(level.params for level in levels)
        counts = {level.n_components for level in levels}
        summed.append(
            replace(
                levels[0],
                rows=sum(level.rows for level in levels),
                weights=sum(level.weights for level in levels),
                n_components=counts.pop() if len(counts) == 1 else 0,
                params=params,
                side_bits=math.fsum(level.side_bits for level in levels),
                level_ratio=summed[-1].params / params if summed else 1.0,
                participation_ratio=None,
                n_keep=None,
                sse_prev=math.fsum(level.sse_prev for level in levels),
                sst_prev=math.fsum(level.sst_prev for level in levels),
                sse=math.fsum(level.sse for level in levels),
                sst=math.fsum(level.sst for level in levels),
                sst_centered=squares_about_mean,
                null_sse=_sum_known([level.null_sse for level in levels]),
                null_sst=_sum_known([level.null_sst for level in levels]),
                null_participation_ratio=None,
                svd_kept=_sum_known([level.svd_kept for level in levels]),
                incompressible=all(level.incompressible for level in levels),
                fixed_point=False,
                code_bits=_sum_known([level.code_bits for level in levels]),
                converged=_mean_known(levels),
            )
        )
    return mark_fixed_point(summed)


def honest_level(levels: Sequence[Level]) -> int:
    """The level with the fewest bits at R2 = 0.99; the lowest of equals."""
    return min(levels, key=lambda level: (level.bits_per_weight, level.level)).level


def _mean_known(levels: Sequence[Level]) -> float | None:
    """Share of all rows that converged."""
    if any(level.converged is None for level in levels):
        return None
    rows = sum(level.rows for level in levels)
    return math.fsum(level.rows * (level.converged or 0.0) for level in levels) / rows


def _sum_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None
