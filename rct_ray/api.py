"""The public functions: run, inspect, open_run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

from rct_ray.checkpoint import find_checkpoints, open_checkpoint
from rct_ray.config import ConfigError, RunConfig, from_preset
from rct_ray.engine import make_engine
from rct_ray.engine.notices import RUN_FINISHED, RUN_STARTED, Notice
from rct_ray.engine.plan import Plan, make_plan, select
from rct_ray.engine.units import make_units
from rct_ray.sweep import Progress, Sweep

if TYPE_CHECKING:
    from rct_ray.engine import Engine
    from rct_ray.results import Run

PathLike: TypeAlias = str | os.PathLike[str]


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
    notice: Notice | None = None,
    **settings: Any,
) -> Run:
    """Measure how compressible the weights of one or several checkpoints are.

    Parameters
    ----------
    checkpoints : path or sequence of paths
        Files, directories, indices, globs, or lists of paths (see `find_checkpoints`). Several
        checkpoints are one run, in order of their steps; one of them that is bad is recorded in the manifest
        (`Run.failed`) and does not stop the rest.
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
        Go on with an unfinished run of the same settings and inputs in `out`; a run over several checkpoints
        may go on with more of them, or fewer.
    progress : callable, optional
        Wraps each checkpoint's results as they come: `progress(label, plan, results) -> results`.
    say : callable, optional
        Gets a line of what a user should know while it happens: what is resumed, what is waited for.
    notice : callable, optional
        Gets every event, a name and a mapping of plain values: `notice("unit done", {"bytes": ...})`.
    **settings
        Fields of `RunConfig`.

    Returns
    -------
    Run
        The finished run, as `open_run` gives it.

    Raises
    ------
    CheckpointError, ConfigError, TowerSyntaxError, PlanError, NonFiniteError, ResultsError, SweepError
        Bad input; one line. Nothing is left in `out`.
    EngineError
        Workers died at every try. The units that were done stay in `out`, for `resume`; so they do when the
        run is interrupted or the disk is full.
    """
    from rct_ray.results import RunWriter, open_run

    config = _configured(config, settings)
    paths = find_checkpoints(_as_paths(checkpoints))

    def hear(event: str, values: Mapping[str, Any]) -> None:
        """Pass on what the engine tells, who knows checkpoints by number alone."""
        if notice is not None:
            notice(event, {**values, "checkpoint": sweep.members[values["checkpoint"]].label})

    def tell(event: str, values: Mapping[str, Any]) -> None:
        chosen.notice(event, values)
        if notice is not None:
            notice(event, values)

    try:
        chosen = make_engine(engine, workers, address, say, hear)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    sweep = Sweep(paths, lambda path: plan_checkpoint(path, config), tell)
    begun = time.perf_counter()
    with RunWriter(out, identity=_identity(config, sweep), resume=resume) as writer:
        with one_blas_thread(), chosen:
            works = sweep.works(writer, make_units, say)
            tell(RUN_STARTED, _about(out, config, chosen, sweep))
            sweep.tell_failures()
            sweep.measure(works, config, chosen, writer, progress)
        seconds = round(time.perf_counter() - begun, 3)
        writer.commit(_manifest(config, chosen, sweep, seconds))
    counts = {"checkpoints": len(sweep.members), "failed": len(sweep.failures)}
    tell(RUN_FINISHED, {"directory": os.fspath(out), **counts, "seconds": seconds})
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
        count_tied=config.count_tied,
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
    chosen = select(checkpoint, config.include, config.exclude, config.columns, config.count_tied)
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


def _identity(config: RunConfig, sweep: Sweep) -> dict[str, Any]:
    """What an unfinished run must have in common with the run that goes on with it."""
    return {"rct-ray": version("rct-ray"), "configuration": config.as_dict(), **sweep.identity()}


def _about(out: PathLike, config: RunConfig, engine: Engine, sweep: Sweep) -> dict[str, Any]:
    return {
        "directory": os.fspath(out),
        "rct_ray": version("rct-ray"),
        "configuration": config.as_dict(),
        "configuration_digest": config.digest,
        "engine": engine.name,
        "workers": engine.workers,
        "checkpoints": len(sweep.members),
        "failed": len(sweep.failures),
        "bytes": sum(member.plan.nbytes for member in sweep.members),
    }


def _manifest(config: RunConfig, engine: Engine, sweep: Sweep, seconds: float) -> dict[str, Any]:
    return {
        "rct_ray": version("rct-ray"),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "configuration": config.as_dict(),
        "configuration_digest": config.digest,
        "engine": {"name": engine.name, "workers": engine.workers},
        "checkpoints": [member.as_dict() for member in sweep.members],
        "failed": [failure.as_dict() for failure in sweep.failures],
    }
