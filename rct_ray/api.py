"""The public functions: run, inspect, open_run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rct_ray.checkpoint import Checkpoint, FileInfo, open_checkpoint
from rct_ray.config import ConfigError, RunConfig, from_preset
from rct_ray.engine import make_engine
from rct_ray.engine.collect import collect, recorded
from rct_ray.engine.measure import Climber, Measured, measure
from rct_ray.engine.plan import Plan, Shard, make_plan, select
from rct_ray.engine.shard import ShardResult, ShardTask
from rct_ray.engine.units import make_units

if TYPE_CHECKING:
    from rct_ray.engine import Engine
    from rct_ray.results import Run, UnitStore
    from rct_ray.transform.leading import LeadingMoments

PathLike: TypeAlias = str | os.PathLike[str]
# Wraps the results of a plan as they come, to show how far it is.
Progress: TypeAlias = Callable[[str, Plan, Iterable[ShardResult]], Iterable[ShardResult]]


def run(
    checkpoints: PathLike | Sequence[PathLike],
    out: PathLike,
    config: RunConfig | None = None,
    *,
    engine: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> Run:
    """Measure how compressible the weights of one or several checkpoints are.

    Parameters
    ----------
    checkpoints : path or sequence of paths
        Files, directories or safetensors indices.
    out : path
        Run directory to write; must not exist, or be empty.
    config : RunConfig, optional
        Or give its fields as keywords (`tower=`, `metric=`, `columns=`, ..., or `preset="paper67"`).
    engine : {"auto", "inprocess", "ray"}
        "auto" stays in this process unless an address is given.
    workers : int, optional
        Threads or Ray actors; by default the CPUs this process may use. Never changes a figure.
    address : str, optional
        Of a running Ray cluster.
    resume : bool
        Go on with an unfinished run of the same settings and inputs in `out`.
    say : callable, optional
        Gets a line of what a user should know while it happens: what is resumed, what is waited for.
    progress : callable, optional
        Wraps each checkpoint's results as they come: `progress(label, plan, results) -> results`.
    **settings
        Fields of `RunConfig`.

    Returns
    -------
    Run
        The finished run, as `open_run` gives it.

    Raises
    ------
    CheckpointError, ConfigError, TowerSyntaxError, PlanError, NonFiniteError, ResultsError
        Bad input; one line. Nothing is left in `out`.
    EngineError
        Workers died at every try. The units that were done stay in `out`, for `resume`; so they do when the
        run is interrupted or the disk is full.
    """
    from rct_ray.results import RunWriter, open_run
    from rct_ray.tables import write_measured

    config = _configured(config, settings)
    paths = _as_paths(checkpoints)
    plans = [plan_checkpoint(path, config) for path in paths]
    labels = _labels([plan.checkpoint for plan in plans])
    try:
        chosen = make_engine(engine, workers, address, say)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    begun = time.perf_counter()
    with RunWriter(out, identity=_identity(config, plans), resume=resume) as writer:
        with one_blas_thread(), chosen:
            for index, (label, plan) in enumerate(zip(labels, plans, strict=True)):
                results = _results(label, plan, config, chosen, writer.units(index), say)
                if progress is not None:
                    results = progress(label, plan, results)
                part = label if len(plans) > 1 else None
                write_measured(writer, label, part, plan, _measure(plan, config, chosen, results))
        seconds = time.perf_counter() - begun
        writer.commit(_manifest(config, chosen, labels, plans, seconds))
    return open_run(out)


def plan_checkpoint(path: PathLike, config: RunConfig) -> Plan:
    """Open a checkpoint and plan what a run would read of it.

    Raises
    ------
    CheckpointError, PlanError
        Bad input; one line.
    """
    return make_plan(
        open_checkpoint(path),
        config.stages,
        metric=config.metric,
        include=config.include,
        exclude=config.exclude,
        columns=config.columns,
        sample_rows=config.sample_rows,
        seed=config.seed,
        svd_bound=config.svd_bound,
        shard_bytes=config.shard_bytes,
        pca=config.pca,
        driver_memory=config.driver_memory,
    )


def inspect(path: PathLike, config: RunConfig | None = None, **settings: Any) -> dict[str, Any]:
    """Say what is in a checkpoint and what a run would take of it; reads headers only.

    Parameters
    ----------
    path : path
    config : RunConfig, optional
        Or give its fields as keywords, as for `run`.

    Returns
    -------
    dict
        Plain JSON types: `tensors` (name, dtype, shape, rows, width, bytes, selected, reason), `files`, and
        the totals `selected`, `rows`, `weights` and `bytes` of what is selected.

    Raises
    ------
    CheckpointError, ConfigError, TowerSyntaxError
        Bad input; one line. A selection that takes nothing is not an error here.
    """
    config = _configured(config, settings)
    checkpoint = open_checkpoint(path)
    chosen = select(checkpoint, config.include, config.exclude, config.columns)
    return {
        "path": checkpoint.path,
        "step": checkpoint.step,
        "files": [{"path": file.path, "bytes": file.size} for file in checkpoint.files],
        "tensors": [
            {
                "name": entry.name,
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "rows": entry.rows,
                "width": entry.width,
                "bytes": entry.nbytes,
                "selected": entry.name not in chosen.refused,
                "reason": chosen.refused.get(entry.name),
            }
            for entry in checkpoint.tensors
        ],
        "selected": len(chosen.taken),
        "rows": sum(entry.rows for entry in chosen.taken),
        "weights": sum(entry.rows * entry.width for entry in chosen.taken),
        "bytes": sum(entry.nbytes for entry in chosen.taken),
    }


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread a worker: the last bit of a product may depend on how many share it."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _configured(config: RunConfig | None, settings: dict[str, Any]) -> RunConfig:
    if config is not None:
        if settings:
            raise ConfigError(f"give a configuration or settings, not both ({', '.join(settings)})")
        return config
    preset = settings.pop("preset", None)
    return from_preset(preset, **settings) if preset else RunConfig(**settings)


def _as_paths(checkpoints: PathLike | Sequence[PathLike]) -> list[PathLike]:
    paths = [checkpoints] if isinstance(checkpoints, (str, os.PathLike)) else list(checkpoints)
    if not paths:
        raise ConfigError("no checkpoint given")
    return paths


def _labels(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Names, or whole paths where names are not enough to tell the checkpoints apart."""
    names = [checkpoint.name for checkpoint in checkpoints]
    if len(set(names)) == len(names):
        return names
    paths = [os.path.realpath(checkpoint.path) for checkpoint in checkpoints]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ConfigError(f"{twice} is given twice")
    return paths


def _results(
    label: str,
    plan: Plan,
    config: RunConfig,
    engine: Engine,
    records: UnitStore,
    say: Callable[[str], None] | None,
) -> Iterable[ShardResult]:
    units = make_units(plan.shards)
    earlier = recorded(units, records)
    if earlier and say is not None:
        say(f"{label}: {len(earlier)} of {len(units)} units were done before and are skipped")
    task = ShardTask(config.stages[0], config.block_bytes)
    finished = engine.run([unit for unit in units if unit.index not in earlier], task)
    return collect(units, finished, records, earlier)


def _measure(
    plan: Plan, config: RunConfig, engine: Engine, results: Iterable[ShardResult]
) -> Iterator[Measured]:
    def wide(shards: Sequence[Shard], threshold: float, seed: int) -> LeadingMoments:
        from rct_ray.engine.wide import leading_moments

        return leading_moments(engine, shards, config.stages[0], threshold, seed)

    climber = Climber(plan, config.stages, config.metric, config.seed, wide)
    return measure(climber, results, strict=config.strict)


def _identity(config: RunConfig, plans: Sequence[Plan]) -> dict[str, Any]:
    """What an unfinished run must have in common with the run that goes on with it."""
    return {
        "rct-ray": version("rct-ray"),
        "configuration": config.as_dict(),
        "file": {file.path: _identity_of(file) for plan in plans for file in plan.checkpoint.files},
    }


def _identity_of(file: FileInfo) -> dict[str, Any]:
    return {"bytes": file.size, "mtime_ns": file.mtime_ns, "header_sha256": file.header_sha256}


def _manifest(
    config: RunConfig, engine: Engine, labels: Sequence[str], plans: Sequence[Plan], seconds: float
) -> dict[str, Any]:
    return {
        "rct_ray": version("rct-ray"),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "configuration": config.as_dict(),
        "configuration_digest": config.digest,
        "engine": {"name": engine.name, "workers": engine.workers},
        "checkpoints": [
            {
                "label": label,
                "path": str(Path(plan.checkpoint.path).absolute()),
                "step": plan.checkpoint.step,
                "metadata": plan.checkpoint.metadata,
                "files": [{"path": file.path, **_identity_of(file)} for file in plan.checkpoint.files],
            }
            for label, plan in zip(labels, plans, strict=True)
        ],
    }
