"""The hot loop on one thread, file to moments, against NumPy's own product of the same array in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks._files import noise, write_matrix
from benchmarks._table import Report, at_least
from benchmarks._timing import fastest
from rct_ray.api import plan_checkpoint
from rct_ray.config import RunConfig
from rct_ray.engine.shard import ShardTask, encode_shard

NBYTES = 256_000_000
# Columns and K of the figure that is required, then of some that are only shown.
REQUIRED = (256, 8)
SHOWN = ((1024, 32), (4096, 128))
# Many, so that minima find quiet moments of a shared machine.
ROUNDS, ROUNDS_SHOWN = 60, 8


def main() -> bool:
    report = Report(
        f"One thread, warm file, {NBYTES // 1_000_000} MB of float32; rates in own bytes",
        *("d, K", "what", "GB/s", "of np.sum"),
    )
    with tempfile.TemporaryDirectory() as directory, threadpool_limits(1):
        for width, K in (REQUIRED, *SHOWN):
            _measure(report, Path(directory), width, K)
    return report.show()


def _measure(report: Report, directory: Path, width: int, K: int) -> None:
    W = noise(NBYTES // 4 // width * width).reshape(-1, width)
    narrow = W.astype(ml_dtypes.bfloat16)
    files = {"F32": directory / "f32.safetensors", "BF16": directory / "bf16.safetensors"}
    write_matrix(files["F32"], "F32", W)
    write_matrix(files["BF16"], "BF16", narrow)
    projection = np.ones((width, K), np.float32)
    rates = _rates(
        {
            "np.sum(W)": (W.nbytes, W.sum),
            "np.sum(bytes of W)": (W.nbytes, _as_words(W).sum),
            "W @ P": (W.nbytes, lambda: W @ projection),
            "encode F32": (W.nbytes, _encoding(files["F32"], K)),
            "encode BF16": (narrow.nbytes, _encoding(files["BF16"], K)),
        },
        ROUNDS if (width, K) == REQUIRED else ROUNDS_SHOWN,
    )
    required = {"encode F32": at_least(0.7), "encode BF16": at_least(0.35)} if (width, K) == REQUIRED else {}
    for name, rate in rates.items():
        report.add(
            *(f"{width}, {K}", name, f"{rate / 1e9:.2f}", f"{rate / rates['np.sum(W)']:.2f}"),
            ratio=rate / rates["W @ P"],
            required=required.get(name),
        )


def _rates(works: dict[str, tuple[int, Callable[[], Any]]], rounds: int) -> dict[str, float]:
    taken = fastest({name: work for name, (_, work) in works.items()}, rounds)
    return {name: works[name][0] / seconds for name, seconds in taken.items()}


def _encoding(path: Path, K: int) -> Callable[[], Any]:
    """What a worker does for all shards of a file."""
    config = RunConfig(tower=f"gaussian(K={K})", svd_bound="never")
    plan = plan_checkpoint(path, config)
    assert all(shard.single and not shard.columns for shard in plan.shards)
    task = ShardTask(config.stages[0], config.block_bytes)
    return lambda: [encode_shard(shard, task) for shard in plan.shards]


def _as_words(W: NDArray[np.float32]) -> NDArray[np.uint64]:
    return W.reshape(-1).view(np.uint64)
