"""A 70 B-parameter model of headers alone, on a Ray cluster of several nodes: the plan, and the driver's rate.

The files are sparse: their headers are real and their weights were never written. Workers make results up, so
that the driver is all that is measured.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._table import Report, at_least, at_most
from rct_ray.api import one_blas_thread, plan_checkpoint
from rct_ray.config import RunConfig
from rct_ray.engine.collect import collect
from rct_ray.engine.measure import Climber, measure
from rct_ray.engine.plan import Plan
from rct_ray.engine.ray_engine import EncodeWorker, RayEngine
from rct_ray.engine.shard import ShardResult, ShardTask
from rct_ray.engine.units import Unit, make_units
from rct_ray.results.units import UnitStore
from rct_ray.transform.moments import CoordinateMoments, RowMoments, WeightMoments

LAYERS, WIDTH, HIDDEN, KEYS, VOCABULARY = 80, 8192, 28672, 1024, 128_256
NODES = 4


class MadeUp(EncodeWorker):
    """Answers at once, with moments of the right size."""

    def encode(self, unit: Unit, task: ShardTask, attempt: int) -> list[ShardResult]:
        """Made-up results of a unit."""
        return [_made_up(shard, task) for shard in unit.shards]


class MadeUpEngine(RayEngine):
    """Ray, with workers that read nothing."""

    worker = MadeUp


def main() -> bool:
    report = Report("A 70 B-parameter catalogue", "what", "value", "against")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        bytes_all = _write_headers(directory)
        before, begun = _resident(), time.perf_counter()
        plan = plan_checkpoint(directory, RunConfig())
        taken, memory = time.perf_counter() - begun, _resident() - before
        tensors, shards = len(plan.checkpoint.tensors), len(plan.shards)
        report.add(
            f"plan: {tensors} tensors, {bytes_all / 1e9:.0f} GB, {shards:,} shards",
            f"{taken:.2f} s", "5 s", ratio=taken / 5, required=at_most(1),
        )  # fmt: skip
        report.add(
            "plan: memory", f"{memory / 1e6:.0f} MB", "500 MB", ratio=memory / 500e6, required=at_most(1)
        )
        for columns, rows in ((None, "as planned (K = 256 and 896)"), (64, "K = 64")):
            rate = _driver_rate(plan, directory / f"units{rows[-2:]}", columns)
            required = at_least(1) if columns else None
            report.add(
                f"driver: results a second, {rows}",
                f"{rate:,.0f}",
                "1,000",
                ratio=rate / 1000,
                required=required,
            )
    return report.show()


def _write_headers(directory: Path) -> int:
    """Sparse shards of a Llama-shaped model, two layers a file."""
    from benchmarks._files import _header

    total = 0
    for first in range(0, LAYERS, 2):
        shapes = [
            (f"model.layers.{layer}.{name}.weight", shape)
            for layer in (first, first + 1)
            for name, shape in (
                ("input_layernorm", (WIDTH,)),
                ("mlp.down_proj", (WIDTH, HIDDEN)),
                ("mlp.gate_proj", (HIDDEN, WIDTH)),
                ("mlp.up_proj", (HIDDEN, WIDTH)),
                ("post_attention_layernorm", (WIDTH,)),
                ("self_attn.k_proj", (KEYS, WIDTH)),
                ("self_attn.o_proj", (WIDTH, WIDTH)),
                ("self_attn.q_proj", (WIDTH, WIDTH)),
                ("self_attn.v_proj", (KEYS, WIDTH)),
            )
        ]
        if not first:
            shapes += [
                ("model.embed_tokens.weight", (VOCABULARY, WIDTH)),
                ("lm_head.weight", (VOCABULARY, WIDTH)),
            ]
        sizes = [2 * int(np.prod(shape)) for _, shape in shapes]
        header = _header("BF16", shapes, sizes)
        with (directory / f"model-{first:05d}.safetensors").open("wb") as file:
            file.write(header)
            file.truncate(len(header) + sum(sizes))
        total += sum(sizes)
    return total


def _driver_rate(plan: Plan, directory: Path, columns: int | None) -> float:
    """Shard results a second that the driver takes in, records, merges and climbs, from the first on."""
    from ray.cluster_utils import Cluster

    config = RunConfig(tower=f"gaussian(K={columns}) > pca > pca > pca" if columns else RunConfig().tower)
    if columns:
        plan = plan_checkpoint(plan.checkpoint.path, config)
    units = make_units(plan.shards)
    task = ShardTask(config.stages[0], config.block_bytes)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(NODES):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        cluster.connect()
        with one_blas_thread(), MadeUpEngine(NODES) as engine:
            climber = Climber(plan, config.stages, config.metric, config.seed, _no_wide)
            results = collect(units, engine.run(units, task), UnitStore(directory), ())
            begun = 0.0
            for _ in measure(climber, _clocked(results, clock := []), strict=False):
                begun = clock[0]
            return (len(plan.shards) - 1) / (time.perf_counter() - begun)
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


def _clocked(results: Any, clock: list[float]) -> Any:
    for result in results:
        clock.append(time.perf_counter())
        yield result


def _no_wide(*_: object) -> Any:
    raise AssertionError("no level of this catalogue is that wide")


_KNOWN: dict[int, CoordinateMoments] = {}


def _made_up(shard: Any, task: ShardTask) -> ShardResult:
    size = task.first_stage.components_for(shard.entry.width)  # type: ignore[union-attr]
    if size not in _KNOWN:
        rows = np.random.default_rng(size).standard_normal((4 * size, size))
        _KNOWN[size] = CoordinateMoments(shard.n_rows, np.zeros(size), rows.T @ rows)
    known = _KNOWN[size]
    moments = CoordinateMoments(shard.n_rows, known.mean, known.scatter)
    count = shard.n_rows * shard.entry.width
    weights = WeightMoments(count, 0.0, 40.0 * known.energy, -1.0, 1.0)
    return ShardResult(
        shard.index, RowMoments(weights, moments), shard.nbytes, 0.0, 0.0, 0.0, str(os.getpid())
    )


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(not main())
