"""Measure many checkpoints on the Ray cluster that this runs on: `rct-ray run` on Ray, with a log of JSON lines.

    python jobs/sweep.py 'runs/step*.safetensors' --out DIR --workers 100

All arguments are those of `rct-ray run`, and win over what is set here. Exit status: 0 all is measured; 1 some
checkpoints are bad (they are listed, the others are measured) or the system failed (go on with --resume); 2 the
input is wrong and nothing was written; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from rct_ray.cli import main


def sweep(arguments: Sequence[str]) -> NoReturn:
    """Run the command line on Ray, and exit as it does."""
    # In a job, Ray itself says by RAY_ADDRESS which cluster is meant.
    main(["run", "--engine", "ray", "--log-json", *arguments])


if __name__ == "__main__":
    sweep(sys.argv[1:])
