"""Measure one checkpoint on the Ray cluster that this runs on; more than one is refused.

    python jobs/tower.py CHECKPOINT --out DIR --workers 100

The checkpoint comes first. All arguments are those of `rct-ray run`, and so is the exit status: what is wrong
with the checkpoint ends in one line and 2, and nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import NoReturn

from rct_ray import CheckpointError, find_checkpoints
from rct_ray.cli import main


def tower(arguments: Sequence[str]) -> NoReturn:
    """Run the command line on Ray for the one checkpoint that comes first, and exit as it does."""
    given = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    try:
        found = find_checkpoints(given)
    except CheckpointError as error:
        _refuse(str(error))
    if len(found) != 1:
        _refuse(f"{len(found)} checkpoints come first, a tower is of one; use jobs/sweep.py for more")
    main(["run", "--engine", "ray", "--log-json", *arguments])


def _refuse(why: str) -> NoReturn:
    print(f"rct-ray: {why}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    tower(sys.argv[1:])
