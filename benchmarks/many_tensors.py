"""A hundred thousand tensors in one checkpoint against ten thousand: no step may be quadratic."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._files import write_checkpoint
from benchmarks._table import Report, at_most
from benchmarks._timing import seconds

COUNTS = (10_000, 100_000)
SHAPE = (8, 32)


def main() -> bool:
    report = Report(
        "Tensors in one checkpoint, in-process, one worker", "tensors", "s", "ms/tensor", "peak MB"
    )
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        for count in COUNTS:
            file, out, peak = (Path(name) / part for part in (f"{count}.safetensors", f"run{count}", "peak"))
            write_checkpoint(file, "BF16", [(f"layers.{n}.weight", SHAPE) for n in range(count)])
            arguments = [
                "run",
                str(file),
                "--engine",
                "inprocess",
                "--workers",
                "1",
                "--json",
                "--out",
                str(out),
            ]
            command = [sys.executable, "-m", "benchmarks._peak", str(peak), *arguments]
            taken.append(
                seconds(lambda run=command: subprocess.run(run, check=True, stdout=subprocess.DEVNULL))
            )
            ratio = taken[-1] / taken[0]
            report.add(
                f"{count:,}",
                f"{taken[-1]:.1f}",
                f"{1e3 * taken[-1] / count:.2f}",
                f"{int(peak.read_text()) / 1e6:.0f}",
                ratio=ratio,
                required=at_most(12) if len(taken) > 1 else None,
            )
            shutil.rmtree(out)
    return report.show()


if __name__ == "__main__":
    sys.exit(not main())
