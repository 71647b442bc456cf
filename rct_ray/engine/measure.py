"""From shard results to towers: reduce in shard order, climb per tensor, width and model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

from rct_ray.checkpoint import TensorEntry
from rct_ray.engine.errors import NonFiniteError
from rct_ray.engine.plan import Plan
from rct_ray.engine.shard import ShardResult
from rct_ray.transform.basis import Basis
from rct_ray.transform.climb import Metric
from rct_ray.transform.level import Level, add_up
from rct_ray.transform.moments import RowMoments, WeightMoments, merge_all
from rct_ray.transform.stages import FixedStage, Stage
from rct_ray.transform.tower import Ascent, noise_seed, tower


@dataclass(frozen=True, slots=True)
class ScopeTower:
    """The tower of one tensor, one width or the model."""

    scope: str
    name: str
    width: int
    levels: Sequence[Level]
    ascent: Ascent | None


@dataclass(frozen=True, slots=True)
class TensorFigures:
    """What was seen of a selected tensor's weights."""

    entry: TensorEntry
    weights: WeightMoments
    fault: str | None
    stable_rank: float | None


@dataclass(slots=True)
class Measurement:
    """All that a run says of one checkpoint."""

    plan: Plan
    towers: list[ScopeTower] = field(default_factory=list)
    tensors: list[TensorFigures] = field(default_factory=list)
    results: list[ShardResult] = field(default_factory=list)


def measure(
    plan: Plan,
    results: Iterable[ShardResult],
    stages: Sequence[Stage],
    *,
    metric: Metric,
    seed: int,
    strict: bool,
) -> Measurement:
    """Climb every tower of a checkpoint.

    Parameters
    ----------
    plan : Plan
    results : iterable of ShardResult
        In shard order. A tensor's moments are let go as soon as its tower is climbed.
    stages, metric, seed
        See `transform.tower.tower`.
    strict : bool
        Raise on the first tensor that is not finite.

    Raises
    ------
    NonFiniteError
        If `strict` and a tensor holds NaN or Inf, or if every tensor does.
    """
    measurement = Measurement(plan)
    widths: dict[int, RowMoments] = {}
    methods = plan.pca_methods
    for entry, moments in _by_tensor(plan, results, measurement.results):
        fault = _fault(moments.weights)
        if fault and strict:
            raise NonFiniteError(f"{entry.name} in {entry.file.path} {fault}: --strict refuses it")
        ascent = None if fault else _climb(entry.name, entry.width, moments, stages, metric, seed, methods)
        if ascent is not None:
            known = widths.get(entry.width)
            widths[entry.width] = moments if known is None else known.merge(moments)
            measurement.towers.append(ScopeTower("tensor", entry.name, entry.width, ascent.levels, ascent))
        figures = TensorFigures(entry, moments.weights, fault, _stable_rank(ascent))
        measurement.tensors.append(figures)
    if not widths:
        raise NonFiniteError(
            f"every selected tensor of {plan.checkpoint.path} holds NaN or Inf: nothing to measure"
        )
    measurement.towers += _pooled(widths, stages, metric, seed, methods)
    return measurement


def _by_tensor(
    plan: Plan, results: Iterable[ShardResult], kept: list[ShardResult]
) -> Iterator[tuple[TensorEntry, RowMoments]]:
    numbered = ((plan.shards[result.index], result) for result in results)
    for _, group in groupby(numbered, key=lambda pair: (pair[0].entry.file.path, pair[0].entry.name)):
        shards = list(group)
        kept += [_without_moments(result) for _, result in shards]
        yield shards[0][0].entry, merge_all(result.moments for _, result in shards)


def _without_moments(result: ShardResult) -> ShardResult:
    return ShardResult(
        result.index,
        RowMoments(WeightMoments()),
        result.nbytes,
        result.seconds_read,
        result.seconds_encode,
        result.seconds,
        result.worker,
        result.attempt,
    )


def _fault(weights: WeightMoments) -> str | None:
    if weights.finite:
        return None
    if weights.nan_count or weights.inf_count:
        return f"holds {weights.nan_count} NaN and {weights.inf_count} Inf"
    return "has squares that overflow float64"


def _climb(
    name: str,
    width: int,
    moments: RowMoments,
    stages: Sequence[Stage],
    metric: Metric,
    seed: int,
    methods: Mapping[int, str],
) -> Ascent:
    noise = noise_seed(seed, name, str(width))
    return tower(moments, width, stages, metric, noise, _basis(stages[0], width), methods[width])


@lru_cache(maxsize=64)
def _basis(stage: Stage, width: int) -> Basis | None:
    return stage.basis(width) if isinstance(stage, FixedStage) else None


def _stable_rank(ascent: Ascent | None) -> float | None:
    """||W||_F^2 / ||W||_2^2, where the spectrum is known."""
    if ascent is None or ascent.eigenvalues is None or not ascent.eigenvalues[0] > 0:
        return None
    return float(ascent.eigenvalues.sum() / ascent.eigenvalues[0])


def _pooled(
    widths: dict[int, RowMoments],
    stages: Sequence[Stage],
    metric: Metric,
    seed: int,
    methods: Mapping[int, str],
) -> Iterator[ScopeTower]:
    pooled = []
    for width, moments in sorted(widths.items()):
        ascent = _climb("", width, moments, stages, metric, seed, methods)
        pooled.append(ScopeTower("width", str(width), width, ascent.levels, ascent))
    yield from pooled
    everything = WeightMoments()
    for _, moments in sorted(widths.items()):
        everything = everything.merge(moments.weights)
    only = pooled[0].width if len(pooled) == 1 else 0
    yield ScopeTower(
        "model", "model", only, add_up([tower.levels for tower in pooled], everything.squares), None
    )
