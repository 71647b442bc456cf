"""8 GiB in many files on Ray: two workers against one, against reading and summing, and the driver's share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks._files import write_checkpoint
from benchmarks._table import Report, at_least, at_most
from benchmarks._timing import seconds

GIBIBYTE = 1 << 30
FILES, ROWS = 32, 262_144
MOST_RESIDENT = 400e6

# Ray is started before the clock is, and the driver's memory is this process's own.
_RUN = """
import json, sys, time
from benchmarks._peak import peak
import rct_ray
from rct_ray.engine.ray_session import import_ray
path, out, workers, tower = sys.argv[1:]
ray = import_ray()
ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False,
         logging_level="ERROR", object_store_memory=128 << 20)
ray.get(ray.put(None))  # its first use imports what it serialises with
arrivals = []
def noted(label, plan, results):
    for result in results:
        arrivals.append(time.perf_counter())
        yield result
begun = time.perf_counter()
run = rct_ray.run(path, out, engine="ray", workers=int(workers), svd_bound="never", tower=tower, progress=noted)
print(json.dumps({"seconds": time.perf_counter() - begun, "working": arrivals[-1] - arrivals[0],
                  "peak": peak(), "shards": run.shards.num_rows}))
ray.shutdown()
"""
_TOWER = "gaussian > pca(0.95) > pca(0.95)"


def main() -> bool:
    report = Report(
        "Ray on 8 GiB of float32 in 32 files (width 256, K = 8), warm", "what", "value", "against"
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if shutil.disk_usage(directory).free < 12 * GIBIBYTE:
            raise OSError(f"{directory} has no room for 10 GiB")
        _write(directory / "large", FILES, ROWS)
        _write(directory / "small", FILES, ROWS // 8)
        _write(directory / "tiny", 4, 4, tensors=500)
        files = sorted((directory / "large").iterdir())
        floor = min(seconds(lambda: _in_two_processes(_sum, files)) for _ in range(2))
        products = min(seconds(lambda: _in_two_processes(_project, files)) for _ in range(2))
        one, two = (_measured(directory, "large", workers) for workers in (1, 2))
        small, tiny = _measured(directory, "small", 2), _measured(directory, "tiny", 2)
    report.add(
        "two workers", f"{two['seconds']:.1f} s", f"{one['seconds']:.1f} s, one worker",
        ratio=one["seconds"] / two["seconds"], required=at_least(1.6),
    )  # fmt: skip
    report.add(
        "the same, from the first result to the last", f"{two['working']:.1f} s",
        f"{one['working']:.1f} s, one worker", ratio=one["working"] / two["working"],
    )  # fmt: skip
    report.add(
        "whole-run rate, two workers", f"{8 * GIBIBYTE / two['seconds'] / 1e9:.1f} GB/s",
        f"{8 * GIBIBYTE / floor / 1e9:.1f} GB/s, two processes that read and sum",
        ratio=floor / two["seconds"], required=at_least(0.5),
    )  # fmt: skip
    report.add(
        "the same, from the first result to the last", f"{8 * GIBIBYTE / two['working'] / 1e9:.1f} GB/s",
        f"{8 * GIBIBYTE / products / 1e9:.1f} GB/s, two processes that read and multiply",
        ratio=products / two["working"],
    )  # fmt: skip
    report.add(
        "driver's peak memory", f"{two['peak'] / 1e6:.0f} MB", "400 MB",
        ratio=two["peak"] / MOST_RESIDENT, required=at_most(1),
    )  # fmt: skip
    report.add(
        "driver's peak memory, 8 GiB", f"{two['peak'] / 1e6:.0f} MB", f"{small['peak'] / 1e6:.0f} MB, 1 GiB",
        ratio=two["peak"] / small["peak"], required=at_most(1.1),
    )  # fmt: skip
    each = 1e3 * tiny["seconds"] / tiny["shards"]
    report.add(
        f"{tiny['shards']:.0f} shards of 4 KB", f"{each:.2f} ms a shard, all told", "5 ms",
        ratio=each / 5, required=at_most(1),
    )  # fmt: skip
    return report.show()


def _write(directory: Path, files: int, rows: int, tensors: int = 1) -> None:
    directory.mkdir()
    for number in range(files):
        shapes = [(f"layers.{number}.{tensor}.weight", (rows, 256)) for tensor in range(tensors)]
        write_checkpoint(directory / f"part-{number:05d}.safetensors", "F32", shapes)


def _measured(directory: Path, checkpoint: str, workers: int) -> dict[str, float]:
    """The fastest of three runs."""
    runs = []
    for attempt in range(3):
        out = directory / f"run-{checkpoint}-{workers}-{attempt}"
        arguments = [str(directory / checkpoint), str(out), str(workers), _TOWER]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", _RUN, *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        shutil.rmtree(out)
    return min(runs, key=lambda run: float(run["seconds"]))


def _in_two_processes(work: Callable[[Path], float], files: list[Path]) -> None:
    with ProcessPoolExecutor(2, initializer=threadpool_limits, initargs=(1,)) as pool:
        list(pool.map(work, files))


def _sum(path: Path) -> float:
    return sum(float(block.sum()) for block in _blocks(path))


def _project(path: Path) -> float:
    """NumPy's own product with as many columns as there are Gaussians, and nothing else."""
    frame = np.ones((256, 8), np.float32)
    return sum(float((block.reshape(-1, 256) @ frame)[0, 0]) for block in _blocks(path))


def _blocks(path: Path) -> Iterator[NDArray[np.float32]]:
    buffer = np.empty(1 << 18, np.float32)
    with path.open("rb", buffering=0) as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while count := file.readinto(buffer.data):
            yield buffer[: count // 4]


if __name__ == "__main__":
    sys.exit(not main())
