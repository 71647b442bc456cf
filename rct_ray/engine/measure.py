"""From shard results to towers: reduce in shard order, climb per tensor, width and model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Measured:
    """One tensor, or (last, without figures) all widths and the model."""

    towers: Sequence[ScopeTower]
    figures: TensorFigures | None
    results: Sequence[ShardResult]


def measure(
    plan: Plan,
    results: Iterable[ShardResult],
    stages: Sequence[Stage],
    *,
    metric: Metric,
    seed: int,
    strict: bool,
) -> Iterator[Measured]:
    """Climb every tower of a checkpoint: each tensor as its shards are in, then the widths and the model.

    A generator, so that nobody need hold the towers of a hundred thousand tensors. Between tensors it holds
    the widths' moments alone.

    Parameters
    ----------
    plan : Plan
    results : iterable of ShardResult
        In shard order.
    stages, metric, seed
        See `transform.tower.tower`.
    strict : bool
        Raise on the first tensor that is not finite.

    Raises
    ------
    NonFiniteError
        If `strict` and a tensor holds NaN or Inf, or if every tensor does.
    """
    widths: dict[int, RowMoments] = {}
    faults: list[str] = []
    for entry, moments, timings in _by_tensor(plan, results):
        fault = _fault(moments.weights)
        if fault and strict:
            raise NonFiniteError(f"{entry.name} in {entry.file.path} {fault}: --strict refuses it")
        ascent = (
            None
            if fault
            else _climb(entry.name, entry.width, moments, stages, metric, seed, plan.pca_methods)
        )
        if fault:
            faults.append(f"{entry.name} {fault}")
        towers = []
        if ascent is not None:
            known = widths.get(entry.width)
            widths[entry.width] = moments if known is None else known.merge(moments)
            towers.append(ScopeTower("tensor", entry.name, entry.width, ascent.levels, ascent))
        yield Measured(towers, TensorFigures(entry, moments.weights, fault, _stable_rank(ascent)), timings)
    if not widths:
        raise NonFiniteError(
            f"no selected tensor of {plan.checkpoint.path} is finite, so there is nothing to measure: "
            + "; ".join(faults[:3])
            + (f"; {len(faults) - 3} more" if len(faults) > 3 else "")
        )
    yield Measured(list(_pooled(widths, stages, metric, seed, plan.pca_methods)), None, ())


def _by_tensor(
    plan: Plan, results: Iterable[ShardResult]
) -> Iterator[tuple[TensorEntry, RowMoments, list[ShardResult]]]:
    def tensor(result: ShardResult) -> tuple[str, str]:
        entry = plan.shards[result.index].entry
        return entry.file.path, entry.name

    for _, group in groupby(results, key=tensor):
        timings: list[ShardResult] = []
        moments = merge_all(_noted(group, timings))
        yield plan.shards[timings[0].index].entry, moments, timings


def _noted(results: Iterable[ShardResult], timings: list[ShardResult]) -> Iterator[RowMoments]:
    """Moments of the results one by one, keeping of each only what it took."""
    for result in results:
        timings.append(_without_moments(result))
        yield result.moments


def _without_moments(result: ShardResult) -> ShardResult:
    return replace(result, moments=RowMoments(WeightMoments()))


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
