"""Rebuilt weights beside the original: R2 of every tensor, and whether it is what the tables say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from rct_ray.checkpoint import Checkpoint, TensorEntry, open_checkpoint
from rct_ray.checkpoint.dtypes import stored_dtype
from rct_ray.checkpoint.errors import quoted
from rct_ray.checkpoint.raw import raw_refusal, raw_values
from rct_ray.rebuild.errors import RebuildError
from rct_ray.rebuild.original import open_original
from rct_ray.rebuild.stored import StoredCodes, run_digest
from rct_ray.rebuild.weights import LABEL, LEVEL, RUN, blocks_of, check_norm
from rct_ray.results import Run, open_run
from rct_ray.transform.level import kept_share

PathLike: TypeAlias = str | os.PathLike[str]

# What R2 may differ by where the output's type rounds nothing away.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """One tensor of rebuilt weights, beside the original.

    Attributes
    ----------
    name, dtype : str
    expected : float or None
        R2 of the table; None for a tensor that was to be copied.
    r2 : float or None
        R2 as it is; None for a tensor that was to be copied.
    allowed : float
        What the two may differ by: 1e-5, and what rounding to `dtype` can add at most.
    agrees : bool
        Whether they differ by no more, or the copy is equal byte for byte.
    """

    name: str
    dtype: str
    expected: float | None
    r2: float | None
    allowed: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of comparing rebuilt weights with the tables.

    Attributes
    ----------
    level : int
    checkpoint : str
        Label of the original in the tables.
    tensors : tuple of TensorCheck
        In the original's order.
    """

    level: int
    checkpoint: str
    tensors: tuple[TensorCheck, ...]

    @property
    def agrees(self) -> bool:
        """Whether every tensor does."""
        return all(tensor.agrees for tensor in self.tensors)


def verify(directory: PathLike, original: PathLike, out: PathLike) -> Verification:
    """Compare every tensor of weights that `reconstruct` wrote with the original, and its R2 with the tables.

    R2 is 1 - |W - V|^2 / |W|^2 over the values as they lie in the two files. Rounding V to `out`'s type moves each
    value by a share u of it at most (2^-8 for bfloat16), so R2 may differ from the table's by
    2 u sqrt((1 - R2) |V|^2 / |W|^2) + u^2 |V|^2 / |W|^2 beside the tolerance of 1e-5.

    Parameters
    ----------
    directory : path
        Run directory.
    original : path
        The checkpoint that was measured.
    out : path
        What `reconstruct` wrote: its file, or of several their index. Its metadata say which level it is.

    Returns
    -------
    Verification

    Raises
    ------
    ResultsError, RebuildError, CheckpointError
        Bad input; one line.
    """
    run = open_run(directory)
    rebuilt = open_checkpoint(_indexed(out))
    level, label = _of_run(run, rebuilt)
    codes = StoredCodes(run, label, level)
    source = open_original(codes.member, original)
    pairs = _paired(source, rebuilt)
    checks = tuple(_check(entry, pairs[entry.name], codes) for entry in source.tensors)
    return Verification(level, codes.label, checks)


def _indexed(out: PathLike) -> PathLike:
    """The index over the files that were written, if there are several."""
    index = Path(os.fsdecode(out) + ".index.json")
    return index if index.exists() and not Path(out).exists() else out


def _of_run(run: Run, rebuilt: Checkpoint) -> tuple[int, str]:
    said = rebuilt.metadata
    level = said.get(LEVEL, "")
    if not level.isascii() or not level.isdecimal() or RUN not in said or LABEL not in said:
        raise RebuildError(
            f"{rebuilt.path} does not say which level of which run it is; write it by reconstruct"
        )
    if said[RUN] != run_digest(run):
        raise RebuildError(f"{rebuilt.path} was rebuilt from another run than {run.path}; give that one")
    return int(level[:9]), said[LABEL]


def _paired(source: Checkpoint, rebuilt: Checkpoint) -> dict[str, TensorEntry]:
    found = {entry.name: entry for entry in rebuilt.tensors}
    for entry in source.tensors:
        other = found.get(entry.name)
        if other is None:
            raise RebuildError(f"{rebuilt.path} lacks the tensor {quoted(entry.name)} of {source.path}")
        if other.shape != entry.shape:
            raise RebuildError(
                f"{rebuilt.path}: tensor {quoted(entry.name)} has shape {list(other.shape)}, "
                f"in {source.path} it has {list(entry.shape)}"
            )
    if len(found) > len(source.tensors):
        extra = min(found.keys() - {entry.name for entry in source.tensors})
        raise RebuildError(f"{rebuilt.path} has a tensor {quoted(extra)} that {source.path} lacks")
    return found


def _check(entry: TensorEntry, other: TensorEntry, codes: StoredCodes) -> TensorCheck:
    figures = codes.figures.get(entry.name) if codes.level else None
    if figures is None:
        return TensorCheck(entry.name, other.dtype, None, None, 0.0, _same_bytes(entry, other))
    expected = figures["r2"]
    if other.skip_reason is not None:
        raise RebuildError(
            f"{other.file.path}: tensor {quoted(other.name)} can't be compared: {other.skip_reason}"
        )
    error, energy, energy_rebuilt = _sums(entry, other)
    check_norm(entry, energy, codes.norms[entry.name])
    r2 = kept_share(error, energy)
    allowed = TOLERANCE + _rounding(other, expected, energy, energy_rebuilt)
    return TensorCheck(entry.name, other.dtype, expected, r2, allowed, bool(abs(r2 - expected) <= allowed))


def _sums(entry: TensorEntry, other: TensorEntry) -> tuple[float, float, float]:
    """Sums of squares: of what differs, of the original, of the rebuilt."""
    error = energy = energy_rebuilt = 0.0
    for (_, rows), (_, rebuilt) in zip(blocks_of(entry), blocks_of(other), strict=True):
        energy += float(np.vdot(rows, rows))
        energy_rebuilt += float(np.vdot(rebuilt, rebuilt))
        rest = rows - rebuilt
        error += float(np.vdot(rest, rest))
    return error, energy, energy_rebuilt


def _rounding(other: TensorEntry, expected: float, energy: float, energy_rebuilt: float) -> float:
    """What rounding to the output's type can change R2 by at most, by the Cauchy-Schwarz inequality."""
    if not energy > 0:
        return 0.0
    import ml_dtypes

    limits = ml_dtypes.finfo(stored_dtype(other.stored))
    smallest = float(limits.smallest_subnormal)
    # Of each value a share, and at least half a step among the smallest.
    moved = float(limits.eps) / 2 * math.sqrt(energy_rebuilt) + smallest / 2 * math.sqrt(
        other.rows * other.width
    )
    share = moved / math.sqrt(energy)
    return 2 * share * math.sqrt(max(0.0, 1 - expected)) + share**2


def _same_bytes(entry: TensorEntry, other: TensorEntry) -> bool:
    if other.dtype != entry.dtype or raw_refusal(entry) or raw_refusal(other):
        return False
    return all(one == two for one, two in zip(raw_values(entry), raw_values(other), strict=True))


def as_rows(checked: Verification) -> list[Mapping[str, object]]:
    """Plain JSON types, one mapping a tensor."""
    return [{field: getattr(tensor, field) for field in TensorCheck.__slots__} for tensor in checked.tensors]
