"""Run benchmarks by name, or all of them; exit status 1 if a requirement is missed."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from benchmarks import command, free_gaussians

NAMES = (
    "exactness",
    "noise",
    "encoding",
    "command",
    "memory",
    "rebuild",
    "curve_fit",
    "free_gaussians",
    "curve_fit_failures",
    "ordering",
    "distributed_pca",
    "many_tensors",
    "catalogue",
    "shard_rate",
    "scale",
    "sweep",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES) + " (default: all)")
    parser.add_argument("--checkpoint", type=Path, help="the file that `command` measures")
    parser.add_argument(
        "--rows", type=int, help="rows that `free_gaussians` gives to curve_fit (512: all of them)"
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there is {', '.join(NAMES)}")
    met = True
    for name in given.names or NAMES:
        if name == "command":
            met &= command.main(given.checkpoint)
        elif name == "free_gaussians":
            met &= free_gaussians.main(given.rows)
        else:
            met &= import_module(f"benchmarks.{name}").main()
    return 0 if met else 1


sys.exit(main())
