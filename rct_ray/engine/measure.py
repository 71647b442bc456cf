"""From shard results to towers: reduce in shard order, climb per tensor, width and model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import TypeAlias

from rct_ray.checkpoint import TensorEntry
from rct_ray.engine.errors import NonFiniteError
from rct_ray.engine.phases import Phases
from rct_ray.engine.plan import Plan, Shard
from rct_ray.engine.shard import ShardResult
from rct_ray.transform.affine_code import Metric
from rct_ray.transform.basis import Basis
from rct_ray.transform.leading import LeadingMoments, decomposed_stage
from rct_ray.transform.learned import FoundTogether, SharedBasis, share_basis
from rct_ray.transform.level import Level, add_up
from rct_ray.transform.moments import RowMoments, WeightMoments, merge_all
from rct_ray.transform.stages import FixedStage, PlacedGaussianStage, Stage, SVDStage, shared_over_width
from rct_ray.transform.tower import Ascent, noise_seed, place_together, summed, tower, wide_tower


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


# Numbers of the d x d moments of matrices that are searched at once (16 MiB): a few small ones, or one wide.
_WINDOW_CELLS = 1 << 21

# Mean, total and leading spectrum of some shards' coordinates, by more passes over them; see `engine.wide`.
Wide: TypeAlias = Callable[[Sequence[Shard], float, int], LeadingMoments]


@dataclass(frozen=True, slots=True)
class Climber:
    """Climbs the towers of one plan.

    Attributes
    ----------
    plan : Plan
    stages, metric, seed
        See `transform.tower.tower`.
    wide : callable
        `wide(shards, threshold, seed)`, for widths whose method is randomized.
    phases : Phases
        Where the driver's time goes; `measure` tells reducing from the rest.
    """

    plan: Plan
    stages: Sequence[Stage]
    metric: Metric
    seed: int
    wide: Wide
    phases: Phases = field(default_factory=Phases)

    def deferred(self, width: int) -> bool:
        """Whether a width's towers need passes of their own, once all workers are free."""
        return self.plan.pca_methods[width] == "randomized"

    def share(self, width: RowMoments) -> SharedBasis | None:
        """The basis that all matrices of a width have in common, if the tower starts with one."""
        first, columns = self.stages[0], width.columns
        if not (isinstance(first, SVDStage) and first.share == "width") or columns is None:
            return None
        return share_basis(first, width.weights, summed(columns))

    def climb(
        self,
        scope: str,
        name: str,
        width: int,
        moments: RowMoments,
        shards: Sequence[Shard] = (),
        shared: SharedBasis | FoundTogether | None = None,
    ) -> ScopeTower:
        """Climb one tower, from its moments or, where these were not kept, from its shards."""
        noise = self._seed_of(scope, name, width)
        if self.deferred(width):
            pca = decomposed_stage(self.stages)
            assert pca is not None  # or the plan would have been refused
            base = self.wide(shards, pca.threshold, noise[-1])
            ascent = wide_tower(moments.weights, base, width, self.stages)
        else:
            basis, method = _basis(self.stages[0], width), self.plan.pca_methods[width]
            ascent = tower(moments, width, self.stages, self.metric, noise, basis, method, shared)
        return ScopeTower(scope, name, width, ascent.levels, ascent)

    def climb_together(self, waiting: Sequence[_Waiting]) -> Iterator[Measured]:
        """Climb towers whose first stage is searched for, those of one width at once."""
        stage = self.stages[0]
        if not waiting or not isinstance(stage, PlacedGaussianStage):
            return
        found: dict[str, FoundTogether] = {}
        for width in dict.fromkeys(one.entry.width for one in waiting):
            own = [one for one in waiting if one.entry.width == width]
            matrices = [(one.moments, self._seed_of("tensor", one.entry.name, width)) for one in own]
            steps = place_together(matrices, width, stage, self.metric)
            found.update(zip((one.entry.name for one in own), steps, strict=True))
        for one in waiting:
            name = one.entry.name
            yield _with_tower(
                one.seen, self.climb("tensor", name, one.entry.width, one.moments, shared=found[name])
            )

    def _seed_of(self, scope: str, name: str, width: int) -> tuple[int, ...]:
        return noise_seed(self.seed, "" if scope == "width" else name, str(width))


def measure(climber: Climber, results: Iterable[ShardResult], *, strict: bool) -> Iterator[Measured]:
    """Climb every tower of a checkpoint: each tensor as its shards are in, then the widths and the model.

    A generator, so that nobody need hold the towers of a hundred thousand tensors. Between tensors it holds
    the widths' moments alone.

    Parameters
    ----------
    climber : Climber
    results : iterable of ShardResult
        In shard order.
    strict : bool
        Raise on the first tensor that is not finite.

    Raises
    ------
    NonFiniteError
        If `strict` and a tensor holds NaN or Inf, or if every tensor does.
    """
    widths: dict[int, RowMoments] = {}
    shards: dict[int, list[Shard]] = {}
    faults: list[str] = []
    later: list[_Waiting] = []
    window: list[_Waiting] = []
    sharing = shared_over_width(climber.stages[0])
    tensors = climber.phases.each("reduce", _by_tensor(climber.plan, results))
    for entry, moments, timings in tensors:
        fault = _fault(moments.weights)
        if fault and strict:
            raise NonFiniteError(f"{entry.name} in {entry.file.path} {fault}: --strict refuses it")
        seen = Measured((), TensorFigures(entry, moments.weights, fault, None), timings)
        if fault:
            yield from climber.climb_together(window)
            window = []
            faults.append(f"{entry.name} {fault}")
            yield seen
            continue
        known = widths.get(entry.width)
        with climber.phases.during("reduce"):
            widths[entry.width] = moments if known is None else known.merge(moments)
        if sharing:
            later.append(_Waiting(entry, moments, (), seen))
        elif climber.deferred(entry.width):
            own = [climber.plan.shards[timing.index] for timing in timings]
            shards.setdefault(entry.width, []).extend(own)
            later.append(_Waiting(entry, moments, own, _NOTHING))
            yield seen
        elif isinstance(climber.stages[0], PlacedGaussianStage):
            window.append(_Waiting(entry, moments, (), seen))
            if sum(one.entry.width**2 for one in window) >= _WINDOW_CELLS:
                yield from climber.climb_together(window)
                window = []
        else:
            yield _with_tower(seen, climber.climb("tensor", entry.name, entry.width, moments))
    yield from climber.climb_together(window)
    if not widths:
        raise NonFiniteError(_nothing_finite(climber.plan, faults))
    shared = {width: climber.share(moments) for width, moments in widths.items()}
    for one in later:
        width = one.entry.width
        climbed = climber.climb("tensor", one.entry.name, width, one.moments, one.shards, shared[width])
        yield _with_tower(one.seen, climbed)
    yield Measured(list(_pooled(climber, widths, shards, shared)), None, ())


_NOTHING = Measured((), None, ())


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A tensor whose tower needs what only the whole checkpoint gives; `seen` has yet to be said of it."""

    entry: TensorEntry
    moments: RowMoments
    shards: Sequence[Shard]
    seen: Measured


def _with_tower(seen: Measured, tower: ScopeTower) -> Measured:
    figures = seen.figures
    if figures is not None:
        figures = replace(figures, stable_rank=_stable_rank(tower.ascent))
    return Measured((tower,), figures, seen.results)


def _nothing_finite(plan: Plan, faults: Sequence[str]) -> str:
    more = f"; {len(faults) - 3} more" if len(faults) > 3 else ""
    return (
        f"no selected tensor of {plan.checkpoint.path} is finite, so there is nothing to measure: "
        f"{'; '.join(faults[:3])}{more}"
    )


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


@lru_cache(maxsize=64)
def _basis(stage: Stage, width: int) -> Basis | None:
    return stage.basis(width) if isinstance(stage, FixedStage) else None


def _stable_rank(ascent: Ascent | None) -> float | None:
    """||W||_F^2 / ||W||_2^2, where the spectrum is known."""
    if ascent is None or ascent.eigenvalues is None or not ascent.eigenvalues[0] > 0:
        return None
    return float(ascent.eigenvalues.sum() / ascent.eigenvalues[0])


def _pooled(
    climber: Climber,
    widths: Mapping[int, RowMoments],
    shards: Mapping[int, Sequence[Shard]],
    shared: Mapping[int, SharedBasis | None],
) -> Iterator[ScopeTower]:
    pooled = [
        climber.climb("width", str(width), width, moments, shards.get(width, ()), shared[width])
        for width, moments in sorted(widths.items())
    ]
    yield from pooled
    everything = WeightMoments()
    for _, moments in sorted(widths.items()):
        everything = everything.merge(moments.weights)
    only = pooled[0].width if len(pooled) == 1 else 0
    levels = add_up([tower.levels for tower in pooled], everything.squares)
    yield ScopeTower("model", "model", only, levels, None)
