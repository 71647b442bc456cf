"""Rebuilding a checkpoint, against copying its file and the bare matrix products; and its peak memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import rct_ray
from benchmarks._files import Shape, write_checkpoint
from benchmarks._table import Report, at_most
from benchmarks._timing import fastest

GIBIBYTE = 1 << 30
MOST = 600e6
# Of bytes a weight.
SIZES = {"BF16": 2, "F32": 4}
# Few components: what is not the products has nowhere to hide.
TOWER = "gaussian(K=32) > pca(0.95)"
LEVEL = 2
_ROWS = 256
_ROUNDS = 2


def main() -> bool:
    report = Report(
        f"`rct-ray reconstruct` of 1 GiB, level {LEVEL} of `{TOWER}`, one thread",
        "what",
        "measured",
        "against",
    )
    with tempfile.TemporaryDirectory() as name:
        for dtype in SIZES:
            _measure(Path(name), dtype, report)
    return report.show()


def _measure(directory: Path, dtype: str, report: Report) -> None:
    file, run = directory / "model.safetensors", directory / "run"
    copy, out = directory / "copy.safetensors", directory / "out.safetensors"
    free = shutil.disk_usage(directory).free
    if free < 4 * GIBIBYTE:
        raise OSError(f"{directory} has {free / 1e9:.1f} GB free; {4 * GIBIBYTE / 1e9:.1f} GB are needed")
    shapes = _shapes(GIBIBYTE // SIZES[dtype])
    write_checkpoint(file, dtype, shapes)
    try:
        rct_ray.run(file, run, tower=TOWER, svd_bound="never")
        kept = {
            row["name"]: row["n_components"] for row in rct_ray.open_run(run).levels_of("tensor").to_pylist()
        }
        works = {
            "rebuild": lambda: _rebuild(run, out),
            "copy": lambda: _copy(file, copy),
            "products": lambda: _products(shapes, kept),
        }
        taken = fastest(works, _ROUNDS)
        floor = 3 * taken["copy"] + taken["products"]
        report.add(
            f"seconds, {dtype}",
            f"{taken['rebuild']:.2f}",
            f"3 x {taken['copy']:.2f} (copy) + {taken['products']:.2f} (products)",
            ratio=taken["rebuild"] / floor,
            required=at_most(1),
        )
        peak = _peak(directory, run, out)
        report.add(
            f"peak MB, {dtype}",
            f"{peak / 1e6:.0f}",
            f"{MOST / 1e6:.0f}",
            ratio=peak / MOST,
            required=at_most(1),
        )
    finally:
        for path in (file, copy, out):
            path.unlink(missing_ok=True)
        shutil.rmtree(run, ignore_errors=True)


def _rebuild(run: Path, out: Path) -> None:
    out.unlink(missing_ok=True)
    rct_ray.reconstruct(run, out, LEVEL)


def _copy(file: Path, copy: Path) -> None:
    """Copied through memory and flushed to disk, as what is rebuilt is."""
    copy.unlink(missing_ok=True)
    with file.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target, 8 << 20)
        target.flush()
        os.fsync(target.fileno())


def _products(shapes: list[tuple[str, Shape]], kept: dict[str, int]) -> None:
    """Coding and decoding alone: float64, blocks of rows in memory already, nothing kept."""
    with threadpool_limits(1):
        for name, (rows, width) in shapes:
            block = np.ones((_ROWS, width))
            encoder, decoder = np.ones((width, kept[name])), np.ones((kept[name], width))
            codes, rebuilt = np.empty((_ROWS, kept[name])), np.empty_like(block)
            for _ in range(0, rows, _ROWS):
                np.matmul(block, encoder, out=codes)
                np.matmul(codes, decoder, out=rebuilt)


def _peak(directory: Path, run: Path, out: Path) -> int:
    """Bytes, as a process of its own counts them."""
    out.unlink(missing_ok=True)
    peak = directory / "peak"
    arguments = ["reconstruct", str(run), "--level", str(LEVEL), "-o", str(out)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks._peak", str(peak), *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return int(peak.read_text())


def _shapes(weights: int) -> list[tuple[str, Shape]]:
    """Matrices of 32 M weights, as large models have them, wide ones and tall ones."""
    count = weights // (8192 * 4096)
    return [(f"layers.{n}.weight", (8192, 4096) if n % 2 else (4096, 8192)) for n in range(count)]
