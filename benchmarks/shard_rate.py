"""What the shard function takes of a core, by width and first stage: bytes a CPU second, on bf16 weights.

By the process's own clock, which other work on the machine stretches less than a wall's. Reading from the page
cache is part of it, as it is of a run. The rates of `benchmarks/on_paper.py` are these.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from benchmarks._table import Report
from benchmarks.on_paper import TOWERS
from rct_ray.api import one_blas_thread, plan_checkpoint
from rct_ray.config import RunConfig
from rct_ray.engine.shard import ShardTask, encode_shard

# The widths of a Llama-shaped model of 70 B parameters.
WIDTHS = (8192, 28672)
ROWS = 8192
TEXTS = (RunConfig().tower, "gaussian(K=64) > pca(0.95)")


def main() -> bool:
    report = Report(
        "The shard function on one core",
        "width",
        "first stage",
        "shards timed",
        "MB a CPU second",
        "on paper",
    )
    with tempfile.TemporaryDirectory() as folder:
        for width in WIDTHS:
            path = Path(folder) / f"{width}.safetensors"
            weights = np.random.default_rng(0).standard_normal((ROWS, width), dtype=np.float32)
            save_file({"weight": (0.02 * weights).astype(ml_dtypes.bfloat16)}, path)
            for text, tower in zip(TEXTS, TOWERS, strict=True):
                timed, rate = _rate(path, RunConfig(tower=text))
                known = tower.rate[width]
                report.add(
                    str(width), text.split(" >")[0], str(timed), f"{rate / 1e6:,.0f}", f"{known / 1e6:,.0f}",
                    ratio=rate / known,
                )  # fmt: skip
            path.unlink()
    return report.show()


def _rate(path: Path, config: RunConfig) -> tuple[int, float]:
    """Shards that were timed, after one that warms the encoder up, and bytes a CPU second."""
    shards = plan_checkpoint(path, config).shards
    task = ShardTask(config.stages[0], config.block_bytes)
    with one_blas_thread():
        encode_shard(shards[0], task, "benchmark", attempt=0)
        begun = time.process_time()
        for shard in shards[1:]:
            encode_shard(shard, task, "benchmark", attempt=0)
        taken = time.process_time() - begun
    return len(shards) - 1, sum(shard.nbytes for shard in shards[1:]) / taken


if __name__ == "__main__":
    sys.exit(not main())
