"""The plan: which tensors are measured, and the fixed shards they are cut into."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rct_ray.checkpoint import Checkpoint, TensorEntry
from rct_ray.engine.errors import PlanError
from rct_ray.engine.pca_method import pca_methods
from rct_ray.transform.encode import Summary
from rct_ray.transform.stages import FixedStage, LearnedStage, PlacedGaussianStage, Stage, first_coordinates

# A width's d x d moments are kept on "auto" up to this many multiply-adds (about a second of one core).
_CHEAP_SPECTRUM = 16e9
# A shard reads at least this many times the bytes of the moments it leaves, which travel and are recorded.
_MOMENTS_SHARE = 16
_SHARD_BYTES = 32 << 20
# From this many weights on, a float32 tensor is projected in float32: rounding then averages out.
_MANY_WEIGHTS = 1 << 23
# ... if the frame is slender; a wide one spends its time in GEMM, where exactness costs little more.
_SLENDER = 8


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tensors are measured."""

    taken: tuple[TensorEntry, ...]
    refused: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Some rows of one tensor: the unit of work, cut by the settings alone.

    Attributes
    ----------
    index : int
        Place in the plan; moments are merged in this order.
    entry : TensorEntry
    start, stop : int
        Rows of the folded matrix.
    rows : ndarray of int64 or None
        The sampled rows within it, ascending; None for all.
    columns : bool
        Whether to keep the d x d moments.
    single : bool
        Whether float32 blocks may be projected in float32.
    summary : {"moments", "tsqr", "gather"}
        How the coordinates that a PCA decomposes are kept.
    """

    index: int
    entry: TensorEntry
    start: int
    stop: int
    rows: NDArray[np.int64] | None
    columns: bool
    single: bool
    summary: Summary

    @property
    def n_rows(self) -> int:
        """Rows that are read."""
        return self.stop - self.start if self.rows is None else len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return self.entry.nbytes // self.entry.rows * self.n_rows


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before the first byte of weights is read."""

    checkpoint: Checkpoint
    selection: Selection
    shards: tuple[Shard, ...]
    spectra: frozenset[int]
    pca_methods: dict[int, Summary]

    @property
    def nbytes(self) -> int:
        """Bytes the shards read."""
        return sum(shard.nbytes for shard in self.shards)


def make_plan(
    checkpoint: Checkpoint,
    stages: Sequence[Stage],
    *,
    metric: str = "isometric",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    columns: int | None = None,
    count_tied: bool = False,
    sample_rows: int | None = None,
    seed: int = 7,
    svd_bound: str = "auto",
    shard_bytes: int | None = None,
    pca: str = "auto",
    driver_memory: int = 1 << 30,
) -> Plan:
    """Select tensors and cut them into shards, in the checkpoint's order.

    Raises
    ------
    PlanError
        If nothing is selected, or the first stage wants more components than a selected tensor has columns.
    BasisError
        If amplitudes are asked for in a basis that has none worth the name.
    """
    selection = selected(checkpoint, include, exclude, columns, count_tied)
    for entry in selection.taken:
        _check_width(stages[0], entry)
    if metric == "amplitude" and isinstance(stages[0], FixedStage | PlacedGaussianStage):
        for width in {entry.width for entry in selection.taken}:
            stages[0].basis(width).unmixing()
    methods = pca_methods(selection.taken, stages, metric, pca, driver_memory, sample_rows)
    # Who is too wide for a scatter of coordinates is too wide for one of columns.
    wide = frozenset(width for width, method in methods.items() if method == "randomized")
    spectra = _widths_with_spectra(selection.taken, stages, svd_bound) - wide
    shards: list[Shard] = []
    for entry, rows in _sampled(selection.taken, sample_rows, seed):
        if rows is None or len(rows):
            keep = entry.width in spectra or not isinstance(stages[0], FixedStage)
            single = _may_be_single(entry, stages[0])
            most = shard_bytes or _shard_bytes(entry.width, stages[0], keep, methods[entry.width])
            shards += _cut(entry, rows, most, len(shards), keep, single, methods[entry.width])
    return Plan(checkpoint, selection, tuple(shards), spectra, methods)


def selected(
    checkpoint: Checkpoint,
    include: Sequence[str],
    exclude: Sequence[str],
    columns: int | None,
    count_tied: bool = False,
) -> Selection:
    """Select tensors, at least one.

    Raises
    ------
    PlanError
        If nothing is selected; says what the globs met.
    """
    selection = select(checkpoint, include, exclude, columns, count_tied)
    if not selection.taken:
        raise PlanError(_nothing_selected(checkpoint, include, exclude, columns))
    return selection


def select(
    checkpoint: Checkpoint,
    include: Sequence[str],
    exclude: Sequence[str],
    columns: int | None,
    count_tied: bool = False,
) -> Selection:
    """Split the checkpoint's tensors into those to measure and those refused, each with its reason."""
    taken, refused = [], {}
    counted: dict[str, str] = {}
    for entry in checkpoint.tensors:
        bytes_of = entry.tied or entry.name
        reason = entry.skip_reason or _left_out(entry, include, exclude, columns)
        if reason is None and not count_tied and bytes_of in counted:
            reason = f"tied to {counted[bytes_of]}"
        if reason is None:
            taken.append(entry)
            counted.setdefault(bytes_of, entry.name)
        else:
            refused[entry.name] = reason
    return Selection(tuple(taken), refused)


def _left_out(
    entry: TensorEntry, include: Sequence[str], exclude: Sequence[str], columns: int | None
) -> str | None:
    if include and not any(fnmatch.fnmatchcase(entry.name, glob) for glob in include):
        return "no --include glob meets it"
    for glob in exclude:
        if fnmatch.fnmatchcase(entry.name, glob):
            return f"--exclude '{glob}'"
    if columns is not None and entry.width != columns:
        return f"width {entry.width}, not {columns} (--columns)"
    return None


def _nothing_selected(
    checkpoint: Checkpoint, include: Sequence[str], exclude: Sequence[str], columns: int | None
) -> str:
    usable = [entry for entry in checkpoint.tensors if entry.skip_reason is None]
    said = [f"{len(checkpoint.tensors)} tensors, {len(usable)} of them matrices of floats"]
    for option, globs in (("--include", include), ("--exclude", exclude)):
        for glob in globs:
            met = sum(fnmatch.fnmatchcase(entry.name, glob) for entry in usable)
            said.append(f"{option} '{glob}' meets {met}")
    if columns is not None:
        widths = Counter(entry.width for entry in usable)
        found = ", ".join(f"{width} ({count})" for width, count in sorted(widths.items())[:8]) or "none"
        said.append(f"--columns {columns}: the widths are {found}")
    return f"no tensor selected in {checkpoint.path}: " + "; ".join(said)


def _check_width(first: Stage, entry: TensorEntry) -> None:
    if not isinstance(first, FixedStage | LearnedStage):
        return
    wanted = first.components_for(entry.width)
    if wanted > entry.width:
        raise PlanError(
            f"{first.spec} wants {wanted} components, but {entry.name} has {entry.width} columns: "
            "lower K, or select by --columns, --include or --exclude"
        )


def _widths_with_spectra(
    entries: Sequence[TensorEntry], stages: Sequence[Stage], svd_bound: str
) -> frozenset[int]:
    widths = {entry.width for entry in entries}
    if not isinstance(stages[0], FixedStage) or svd_bound == "always":
        return frozenset(widths)
    if svd_bound == "never":
        return frozenset()
    work: Counter[int] = Counter({width: width**3 for width in widths})
    for entry in entries:
        work[entry.width] += entry.rows * entry.width**2 + entry.width**3
    return frozenset(width for width, macs in work.items() if macs <= _CHEAP_SPECTRUM)


def _shard_bytes(width: int, first: Stage, columns: bool, method: Summary) -> int:
    """32 MiB, or more where a shard's moments would otherwise be no small part of what it reads."""
    if method in ("gather", "randomized"):
        return _SHARD_BYTES
    size = width if columns else first_coordinates(first, width)
    return max(_SHARD_BYTES, _MOMENTS_SHARE * 8 * size**2)


def _may_be_single(entry: TensorEntry, first: Stage) -> bool:
    if not isinstance(first, FixedStage):
        return False
    slender = first.components_for(entry.width) * _SLENDER <= entry.width
    return slender and entry.rows * entry.width >= _MANY_WEIGHTS


def _sampled(
    entries: Sequence[TensorEntry], sample_rows: int | None, seed: int
) -> Iterator[tuple[TensorEntry, NDArray[np.int64] | None]]:
    """Each tensor with its sampled rows, drawn from all matrices of its width stacked in order."""
    totals: Counter[int] = Counter()
    for entry in entries:
        totals[entry.width] += entry.rows
    drawn = {width: _draw(total, sample_rows, seed) for width, total in totals.items()}
    seen: Counter[int] = Counter()
    for entry in entries:
        chosen, start = drawn[entry.width], seen[entry.width]
        seen[entry.width] += entry.rows
        if chosen is None:
            yield entry, None
        else:
            first, last = np.searchsorted(chosen, [start, start + entry.rows])
            yield entry, chosen[first:last] - start


def _draw(total: int, sample_rows: int | None, seed: int) -> NDArray[np.int64] | None:
    if sample_rows is None or sample_rows >= total:
        return None
    chosen = np.random.default_rng(seed).choice(total, sample_rows, replace=False)
    return np.sort(chosen.astype(np.int64))


def _cut(
    entry: TensorEntry,
    rows: NDArray[np.int64] | None,
    shard_bytes: int,
    index: int,
    columns: bool,
    single: bool,
    summary: Summary,
) -> Iterator[Shard]:
    step = max(1, shard_bytes * entry.rows // entry.nbytes) if entry.seekable else entry.rows
    for start in range(0, entry.rows, step):
        stop = min(start + step, entry.rows)
        within = None
        if rows is not None:
            within = rows[slice(*np.searchsorted(rows, [start, stop]))]
            if not len(within):
                continue
        yield Shard(index, entry, start, stop, within, columns, single, summary)
        index += 1
