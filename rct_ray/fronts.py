"""R2 against bits for every choice of basis, ordering, K, threshold and rounding: the public function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rct_ray.api import one_blas_thread
from rct_ray.checkpoint import Checkpoint, open_checkpoint
from rct_ray.config import ConfigError, RunConfig
from rct_ray.engine.frontier import TensorFrontier, check_memory, frontiers
from rct_ray.engine.plan import selected
from rct_ray.transform.frontier import Grid, Point, add_up, front
from rct_ray.transform.level import kept_share
from rct_ray.transform.quantize import MOST_BITS
from rct_ray.transform.stages import FixedStage, LearnedStage, shared_over_width
from rct_ray.transform.tower_language import parse_tower

if TYPE_CHECKING:
    import pyarrow as pa

BASES = ("gaussian", "gaussian(order=assign)", "dct", "svd")
Progress: TypeAlias = Callable[[str, Any, Iterable[TensorFrontier]], Iterable[TensorFrontier]]


def frontier(
    checkpoint: str | os.PathLike[str],
    bases: Sequence[str] = BASES,
    config: RunConfig | None = None,
    *,
    shares: Sequence[float] | None = None,
    thresholds: Sequence[float] | None = None,
    bits: Sequence[int] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> pa.Table:
    """Sweep bases, K, thresholds and rounding over a checkpoint, beside what low rank and plain rounding keep.

    Each tensor is read once and held whole; all its points come from that.

    Parameters
    ----------
    checkpoint : path
    bases : sequence of str
        First stages of a tower, such as "gaussian(order=assign)", "dct", "svd"; their K is swept.
    config : RunConfig, optional
        Which tensors (`include`, `exclude`, `columns`), the `seed` of the shuffles, and `driver_memory`.
    shares : sequence of float, optional
        K over columns, above 0 and at most 1; by default 1/64, 1/32, ..., 1/2, and 1 in bases whose functions do
        not depend on K. Bases that are searched for anew at each K are by default tried up to 1/8.
    thresholds : sequence of float, optional
        Of a PCA after the basis, beside none; by default 0.99 and 0.9.
    bits : sequence of int, optional
        To round the code to, beside floats of 16 bits; by default 8, 4, 3 and 2.
    workers : int, optional
        Threads, a tensor each; by default the CPUs this process may use. Changes no figure.
    progress : callable, optional
        Wraps the tensors as they come: `progress(label, sized, tensors) -> tensors`.
    say : callable, optional
        Gets a line for each tensor that is left out.

    Returns
    -------
    pyarrow.Table
        Of the schema `rct_ray.results.FRONTIER`: every point of every tensor, then those of the model.

    Raises
    ------
    CheckpointError, ConfigError, TowerSyntaxError, PlanError, NonFiniteError
        Bad input; one line.
    """
    from rct_ray.results.schema import FRONTIER
    from rct_ray.results.tables import as_table

    config = config or RunConfig()
    grid = _grid(bases, shares, thresholds, bits)
    opened = open_checkpoint(checkpoint)
    entries = selected(opened, config.include, config.exclude, config.columns, config.count_tied).taken
    threads = len(os.sched_getaffinity(0)) if workers is None else workers
    if threads < 1:
        raise ConfigError(f"workers must be at least 1, not {threads}")
    check_memory(entries, threads, config.driver_memory)
    rows: list[dict[str, Any]] = []
    everything: list[TensorFrontier] = []
    left_out: list[str] = []
    with one_blas_thread():
        tensors: Iterable[TensorFrontier] = frontiers(entries, grid, config.seed, threads)
        if progress is not None:
            tensors = progress(opened.name, _Sized(sum(entry.nbytes for entry in entries)), tensors)
        for one in tensors:
            if one.fault is not None:
                left_out.append(f"{one.entry.name} {one.fault}: left out")
                continue
            everything.append(one)
            scope = {"scope": "tensor", "name": one.entry.name, "width": one.entry.width}
            rows += _rows(scope, one.points, one.weights, one.energy)
    if say is not None:
        for line in left_out:
            say(line)
    rows += _model_rows(everything)
    return as_table("frontier", [{**_origin(opened), **row} for row in rows], FRONTIER)


@dataclass(frozen=True, slots=True)
class _Sized:
    nbytes: int


def _grid(
    bases: Sequence[str],
    shares: Sequence[float] | None,
    thresholds: Sequence[float] | None,
    bits: Sequence[int] | None,
) -> Grid:
    stages = tuple(dict.fromkeys(_stage(text) for text in bases))
    if not stages:
        raise ConfigError("no basis given")
    given: dict[str, Any] = {}
    if shares is not None:
        given["shares"] = given["searched"] = _within("share", shares, 1)
    if thresholds is not None:
        given["thresholds"] = (None, *_within("threshold", thresholds, 1))
    if bits is not None:
        given["bits"] = (None, *_within("bits", bits, MOST_BITS))
    grid = Grid(stages, **given)
    for stage in stages:
        if not grid.shares_of(stage):
            raise ConfigError(f"{stage.spec} has other functions at each K, and with all K = d it only turns rows: "
                              "give a share below 1")  # fmt: skip
    return grid


def _within(name: str, values: Sequence[Any], most: int) -> tuple[Any, ...]:
    for value in values:
        if not 0 < value <= most:
            raise ConfigError(f"{name} must be above 0 and at most {most}, not {value}")
    return tuple(dict.fromkeys(values))


def _stage(text: str) -> FixedStage | LearnedStage:
    stages = parse_tower(text)
    stage = stages[0]
    if len(stages) > 1 or not isinstance(stage, FixedStage | LearnedStage):
        raise ConfigError(
            f"a frontier sweeps bases, such as gaussian or svd, one --basis each, and not '{text}'"
        )
    if shared_over_width(stage) or stage.n_components is not None:
        raise ConfigError(f"'{text}': a frontier sweeps K itself, tensor by tensor; give neither K nor share")
    return stage


def _origin(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"checkpoint": checkpoint.name, "step": checkpoint.step}


def _model_rows(tensors: Sequence[TensorFrontier]) -> Iterator[dict[str, Any]]:
    widths = {one.entry.width for one in tensors}
    scope = {"scope": "model", "name": "model", "width": widths.pop() if len(widths) == 1 else 0}
    weights, energy = sum(one.weights for one in tensors), sum(one.energy for one in tensors)
    return _rows(scope, add_up([one.points for one in tensors]), weights, energy)


def _rows(
    scope: dict[str, Any], points: Sequence[Point], weights: int, energy: float
) -> Iterator[dict[str, Any]]:
    best = front(points)
    for point in points:
        setting = point.setting
        yield {
            **scope,
            "weights": weights,
            "kind": setting.kind,
            "curve": setting.curve,
            "share": setting.share,
            "threshold": setting.threshold,
            "bits": setting.bits,
            "bits_per_weight": point.total_bits / weights,
            "r2": kept_share(point.sse, energy),
            "sse": point.sse,
            "sst": energy,
            "front": setting in best,
        }
