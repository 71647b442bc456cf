"""What the code of each level takes as a file, beside the original's bytes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from rct_ray.rebuild.stored import member_of, refuse_sample
from rct_ray.results import open_run
from rct_ray.transform.level import kept_share

_BYTES_PER_NUMBER = 2


@dataclass(frozen=True, slots=True)
class CodeSize:
    """Bytes of one level's code as a compressed checkpoint.

    Attributes
    ----------
    level : int
        0 for the weights themselves at 16 bits.
    stage : str
    numbers : int
        Bytes of the numbers that rows are coded by and of the decoders that were learned, at 16 bits each (fixed
        bases are recomputed and take none). Quantized codes count as what they take when coded.
    side : int
        Bytes of what decoders cost beside, such as orderings.
    unchanged : int
        Bytes of the tensors in no tower, as they are stored.
    header : int
        Bytes of the original's headers, which a compressed checkpoint needs as well.
    total : int
    original : int
        Bytes of the original's files.
    r2 : float
        Energy kept of the weights in towers.
    """

    level: int
    stage: str
    numbers: int
    side: int
    unchanged: int
    header: int
    original: int
    r2: float

    @property
    def total(self) -> int:
        """All of them."""
        return self.numbers + self.side + self.unchanged + self.header


def code_sizes(directory: str | os.PathLike[str], checkpoint: str | None = None) -> list[CodeSize]:
    """Bytes that a run's code takes at each level, computed from its tables.

    Parameters
    ----------
    directory : path
        Run directory.
    checkpoint : str, optional
        Label; needed in a run over several.

    Returns
    -------
    list of CodeSize
        Level by level, each tensor's tower stopped there.

    Raises
    ------
    ResultsError, RebuildError
        Bad input; one line.
    """
    run = open_run(directory)
    member = member_of(run, checkpoint)
    refuse_sample(run)
    label = member["label"]
    stored = [row for row in run.tensors.to_pylist() if row["checkpoint"] == label]
    unchanged = sum(row["bytes"] for row in stored if row["status"] != "used")
    original = sum(file["bytes"] for file in member["files"])
    # Of compressed files there is no telling what is header.
    header = max(0, original - sum(row["bytes"] for row in stored))
    rows = run.levels_of(scope="tensor", checkpoint=label).to_pylist()
    sizes = []
    for level in sorted({row["level"] for row in rows}):
        here = [row for row in rows if row["level"] == level]
        sizes.append(
            CodeSize(
                level=level,
                stage=here[0]["stage"],
                numbers=_BYTES_PER_NUMBER * sum(row["params"] for row in here),
                side=math.ceil(sum(row["side_bits"] for row in here) / 8),
                unchanged=unchanged,
                header=header,
                original=original,
                r2=kept_share(sum(row["sse"] for row in here), sum(row["sst"] for row in here)),
            )
        )
    return sizes
