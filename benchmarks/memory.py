"""Peak memory of a run with two workers, on a checkpoint far larger than that and on a quarter of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._files import Shape, write_checkpoint
from benchmarks._table import Report, at_most

MOST = 700e6
GIBIBYTE = 1 << 30
WORKERS = 2
# Of bytes a weight.
SIZES = {"BF16": 2, "F32": 4}


def main() -> bool:
    report = Report(f"Peak resident memory of `rct-ray run` with {WORKERS} workers", "what", "MB", "against")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for dtype in SIZES:
            small, large = (_peak(directory, dtype, gibibytes) for gibibytes in (1, 4))
            report.add(
                *(f"4 GiB of {dtype}", f"{large / 1e6:.0f}", f"{MOST / 1e6:.0f} MB"),
                ratio=large / MOST,
                required=at_most(1),
            )
            report.add(
                *(f"4 GiB of {dtype}", f"{large / 1e6:.0f}", f"{small / 1e6:.0f} MB, of 1 GiB"),
                ratio=large / small,
                required=at_most(1.1),
            )
    return report.show()


def _peak(directory: Path, dtype: str, gibibytes: int) -> int:
    """Bytes, as a process of its own counts them."""
    file, out = directory / "model.safetensors", directory / "run"
    needed = gibibytes * GIBIBYTE
    free = shutil.disk_usage(directory).free
    if free < 1.2 * needed:
        raise OSError(f"{directory} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed")
    write_checkpoint(file, dtype, _shapes(needed // SIZES[dtype]))
    arguments = ["run", str(file), "--engine", "inprocess", "--workers", str(WORKERS), "--out", str(out)]
    peak = directory / "peak"
    try:
        subprocess.run(
            [sys.executable, "-m", "benchmarks._peak", str(peak), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return int(peak.read_text())
    finally:
        file.unlink()
        shutil.rmtree(out, ignore_errors=True)


def _shapes(weights: int) -> list[tuple[str, Shape]]:
    """Matrices of 32 M weights, as large models have them, wide ones and tall ones."""
    count = weights // (8192 * 4096)
    return [(f"layers.{n}.weight", (8192, 4096) if n % 2 else (4096, 8192)) for n in range(count)]
