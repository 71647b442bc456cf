"""From what was measured to the rows of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rct_ray.engine.measure import ScopeTower, TensorFigures
from rct_ray.engine.plan import Plan
from rct_ray.engine.shard import ShardResult
from rct_ray.transform.basis import Array
from rct_ray.transform.level import Level
from rct_ray.transform.moments import WeightMoments
from rct_ray.transform.rung import RowStep, Rung
from rct_ray.transform.stages import FixedStage, GaussianStage, PCAStage

Row = dict[str, Any]

_LEVEL_COLUMNS = (
    "level", "stage", "rows", "weights", "n_components", "params", "side_bits", "level_ratio",
    "cumulative_ratio", "participation_ratio", "n_keep", "threshold", "r2_prev", "r2", "r2_centered",
    "null_r2", "null_participation_ratio", "lift", "svd_bound_r2", "sse", "sst", "sqnr_db",
    "relative_error", "pca_method", "bits_per_weight", "fixed_point", "incompressible", "code_bits", "converged",
)  # fmt: skip


def level_rows(towers: Iterable[ScopeTower], checkpoint: str, step: int | None) -> list[Row]:
    """Rows of `levels`."""
    rows = []
    for tower in towers:
        scope = {
            "checkpoint": checkpoint,
            "step": step,
            "scope": tower.scope,
            "name": tower.name,
            "width": tower.width,
        }
        rows += [{**scope, **_figures(level)} for level in tower.levels]
    return rows


def tensor_rows(plan: Plan, seen: Mapping[str, TensorFigures], checkpoint: str) -> list[Row]:
    """Rows of `tensors`: every tensor of the checkpoint, in its order.

    Parameters
    ----------
    plan : Plan
    seen : mapping of str to TensorFigures
        What was measured, by the tensor's name.
    checkpoint : str
        Label.
    """
    refused = plan.selection.refused
    return [
        {
            "checkpoint": checkpoint,
            "name": entry.name,
            "file": entry.file.path,
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "bytes": entry.nbytes,
            "rows": entry.rows,
            "width": entry.width,
            **_statistics(seen.get(entry.name), refused.get(entry.name)),
        }
        for entry in plan.checkpoint.tensors
    ]


def shard_rows(plan: Plan, results: Iterable[ShardResult], checkpoint: str) -> list[Row]:
    """Rows of `shards`."""
    rows = []
    for result in results:
        shard = plan.shards[result.index]
        rows.append(
            {
                "checkpoint": checkpoint,
                "shard": shard.index,
                "tensor": shard.entry.name,
                "row_start": shard.start,
                "row_stop": shard.stop,
                "rows": shard.n_rows,
                "bytes": result.nbytes,
                "seconds_read": result.seconds_read,
                "seconds_encode": result.seconds_encode,
                "seconds": result.seconds,
                "worker": result.worker,
                "attempt": result.attempt,
            }
        )
    return rows


def decoder_rows(towers: Iterable[ScopeTower], checkpoint: str) -> list[Row]:
    """Rows of `decoders`: what is needed to turn codes into weights.

    A fixed basis is stored once a width; what was learned from the weights, once a tower.
    """
    rows = []
    for tower in towers:
        if tower.ascent is None:
            continue
        for level, rung in enumerate(tower.ascent.rungs, start=1):
            for kind, matrix in _matrices(tower, rung, level):
                rows.append(
                    {
                        "checkpoint": checkpoint,
                        "scope": tower.scope,
                        "name": tower.name,
                        "width": tower.width,
                        "level": level,
                        "stage": rung.stage.spec,
                        "kind": kind,
                        "rows": matrix.shape[0],
                        "columns": matrix.shape[1],
                        "values": matrix.ravel(),
                    }
                )
    return rows


def _figures(level: Level) -> Row:
    return {column: getattr(level, column) for column in _LEVEL_COLUMNS}


def _statistics(figures: TensorFigures | None, refused: str | None) -> Row:
    if figures is None:
        # Selected, but none of its rows were drawn.
        return {"status": "skipped", "skip_reason": refused or "none of its rows is in the sample"}
    weights = figures.weights
    counted = {"nan_count": weights.nan_count, "inf_count": weights.inf_count}
    if figures.fault:
        return {**counted, "status": "nonfinite", "skip_reason": figures.fault}
    return {**counted, **_finite_statistics(weights), "stable_rank": figures.stable_rank, "status": "used"}


def _finite_statistics(weights: WeightMoments) -> Row:
    return {
        "mean": weights.mean,
        "std": weights.variance**0.5,
        "min": weights.minimum,
        "max": weights.maximum,
        "norm": weights.energy**0.5,
    }


def _matrices(tower: ScopeTower, rung: Rung, level: int) -> Iterator[tuple[str, Array]]:
    stage, step = rung.stage, rung.step
    if isinstance(step, RowStep):
        yield from step.matrices
        return
    if isinstance(stage, FixedStage):
        if level == 1 and tower.scope == "width":
            yield from _fixed_matrices(stage, tower.width)
        elif level > 1:
            yield "components", step.decoder
        return
    yield "components", step.decoder
    yield from step.beside
    if isinstance(stage, PCAStage):
        yield "mean", step.mean[None, :]


def _fixed_matrices(stage: FixedStage, width: int) -> Iterator[tuple[str, Array]]:
    basis = stage.basis(width)
    yield "basis", basis.frame.T
    if isinstance(stage, GaussianStage):
        yield "gaussians", basis.functions
