"""The frontier of a checkpoint: each tensor read once, whole, and all its points from that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rct_ray.checkpoint import RowReader, TensorEntry
from rct_ray.engine.errors import NonFiniteError, PlanError
from rct_ray.transform.basis import Array
from rct_ray.transform.frontier import Grid, Point, frontier_points
from rct_ray.transform.frontier_grid import matrix_bytes
from rct_ray.transform.tower import noise_seed


@dataclass(frozen=True, slots=True, eq=False)
class TensorFrontier:
    """The points of one tensor; none if it is not finite."""

    entry: TensorEntry
    points: Sequence[Point]
    energy: float
    weights: int
    nbytes: int
    fault: str | None = None


def check_memory(entries: Sequence[TensorEntry], workers: int, memory: int) -> None:
    """Refuse tensors that `workers` can't hold at once.

    Raises
    ------
    PlanError
        If the largest tensors, as many as there are workers, would take more than `memory` bytes.
    """
    largest = sorted(entries, key=_bytes)[-workers:]
    needed = sum(_bytes(entry) for entry in largest)
    if needed > memory:
        raise PlanError(
            f"a frontier holds whole tensors: {workers} at once, up to {largest[-1].rows:,} x "
            f"{largest[-1].width:,} ({largest[-1].name}), take {needed / 2**30:.2f} GiB and --driver-memory is "
            f"{memory / 2**30:.2f} GiB: raise it, use fewer --workers, or --exclude the largest"
        )


def _bytes(entry: TensorEntry) -> int:
    return matrix_bytes(entry.rows, entry.width)


def frontiers(
    entries: Sequence[TensorEntry], grid: Grid, seed: int, workers: int
) -> Iterator[TensorFrontier]:
    """Measure tensors on threads, and give them in order.

    Raises
    ------
    NonFiniteError
        If no tensor is finite.
    """
    finite = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
        # A task reads its own tensor, so no more are held than there are threads.
        tasks = [pool.submit(_measured, entry, grid, seed) for entry in entries]
        try:
            for task in tasks:
                one = task.result()
                finite += one.fault is None
                yield one
        finally:
            for task in tasks:
                task.cancel()
    if not finite:
        raise NonFiniteError(f"no selected tensor of {entries[0].file.path} is finite: nothing to measure")


def _measured(entry: TensorEntry, grid: Grid, seed: int) -> TensorFrontier:
    rows = _read(entry)
    if not np.isfinite(rows).all():
        bad = int(rows.size - np.isfinite(rows).sum())
        return TensorFrontier(entry, (), 0.0, rows.size, entry.nbytes, f"holds {bad} NaN or Inf")
    energy = float(np.vdot(rows, rows))
    if not np.isfinite(energy):
        return TensorFrontier(entry, (), 0.0, rows.size, entry.nbytes, "has squares that overflow float64")
    points = list(frontier_points(rows, grid, noise_seed(seed, entry.name, str(entry.width))))
    return TensorFrontier(entry, points, energy, rows.size, entry.nbytes)


def _read(entry: TensorEntry) -> Array:
    rows = np.empty((entry.rows, entry.width), entry.value_dtype)
    with RowReader(entry) as reader:
        reader.read(0, entry.rows, rows)
    return rows.astype(np.float64, copy=False)
