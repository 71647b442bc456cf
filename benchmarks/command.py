"""The whole command in a fresh process, against WeightWatcher loading and analysing the same file.

WeightWatcher (torch, matplotlib, pandas) lives in an environment of its own: WEIGHTWATCHER_PYTHON names its
Python. Without it the comparison is not measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks._files import PHOTONIC, photonic_shapes, write_checkpoint
from benchmarks._table import Report, at_most
from benchmarks._timing import fastest

PEER = Path(__file__).with_name("_weightwatcher.py")
ROUNDS = 5


def main(checkpoint: Path | None = None) -> bool:
    python = os.environ.get("WEIGHTWATCHER_PYTHON")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        file = directory / "model.safetensors"  # the only name WeightWatcher takes
        label = _provide(file, checkpoint)
        works: dict[str, Callable[[], object]] = {
            "rct-ray": lambda: _run_ours(file, directory / "run"),
            "imports": lambda: _call(
                [sys.executable, "-c", "import numpy, pyarrow.parquet, rich.table, typer"]
            ),
            "python": lambda: _call([sys.executable, "-c", "pass"]),
        }
        if python:
            works["WeightWatcher"] = lambda: _call([python, str(PEER), str(directory)])
        fastest(works, 1)  # warms files and bytecode
        taken = fastest(works, ROUNDS)
        said = _call([python, str(PEER), str(directory)]).splitlines()[-1] if python else "not installed"
    return _report(label, taken, said)


def _report(label: str, taken: dict[str, float], peer: str) -> bool:
    report = Report(f"{label}: seconds of a fresh process, start to end", "what", "seconds")
    ours, theirs = taken["rct-ray"], taken.get("WeightWatcher")
    report.add("python -c pass", f"{taken['python']:.2f}", ratio=taken["python"] / ours)
    report.add(
        "import numpy, pyarrow.parquet, rich, typer", f"{taken['imports']:.2f}", ratio=taken["imports"] / ours
    )
    report.add(
        f"WeightWatcher load + analyze() ({peer})" if theirs else "WeightWatcher: set WEIGHTWATCHER_PYTHON",
        f"{theirs:.2f}" if theirs else "",
        ratio=theirs / ours if theirs else None,
    )
    report.add(
        *("rct-ray run, of WeightWatcher's time", f"{ours:.2f}"),
        ratio=ours / theirs if theirs else None,
        required=at_most(0.5),
    )
    return report.show()


def _provide(file: Path, checkpoint: Path | None) -> str:
    if checkpoint is None and not PHOTONIC.exists():
        write_checkpoint(file, "BF16", photonic_shapes())
        return "noise in the shapes of a 10.3 M-parameter GPT"
    source = checkpoint or PHOTONIC
    shutil.copyfile(source, file)
    return f"{source.parent.name}/{source.name}"


def _run_ours(file: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    script = Path(sys.executable).with_name("rct-ray")
    _call([str(script), "run", str(file), "--engine", "inprocess", "--out", str(out)])


def _call(arguments: list[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
