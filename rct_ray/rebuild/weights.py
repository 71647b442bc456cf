"""Weights rebuilt at a level of their towers: read, coded, decoded and written block by block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.checkpoint import Checkpoint, RowReader, TensorEntry
from rct_ray.checkpoint.dtypes import STORED, stored_dtype
from rct_ray.checkpoint.errors import quoted
from rct_ray.checkpoint.raw import raw_refusal, raw_values
from rct_ray.rebuild.errors import RebuildError
from rct_ray.rebuild.original import open_original
from rct_ray.rebuild.stored import StoredCodes
from rct_ray.rebuild.writing import Output, Planned, lay_out, whole_files
from rct_ray.results import open_run
from rct_ray.transform.affine_code import AffineCode
from rct_ray.transform.basis import Array

PathLike: TypeAlias = str | os.PathLike[str]

LEVEL, RUN, LABEL = "rct_ray.level", "rct_ray.run", "rct_ray.checkpoint"
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
MAX_SHARD_SIZE = 5 * 10**9
# Weights that are coded at once: enough rows for a matrix product at its best, and few megabytes.
_BLOCK = 1 << 20
# Sums of squares of the same values differ by rounding alone, a run's having been in float32 here and there; other
# weights differ by far more.
_SAME_ENERGY = 1e-6


def reconstruct(
    directory: PathLike,
    out: PathLike,
    level: int,
    *,
    original: PathLike | None = None,
    checkpoint: str | None = None,
    dtype: str | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
) -> list[Path]:
    """Write a checkpoint whose weights are those that a level of a run's towers decodes to.

    Each row is coded and decoded anew from the original checkpoint by the decoders that the run stored for its
    tensor (scope `tensor`); codes themselves are not stored. Tensors in no tower are copied byte for byte. Memory
    is bounded by a block of rows and one tensor's decoders.

    Parameters
    ----------
    directory : path
        Run directory.
    out : path
        Safetensors file to write; must not exist. Beyond `max_shard_size` bytes the tensors are spread over
        numbered files, with an index (``NAME.safetensors.index.json``).
    level : int
        Level of the tower; at 0 all tensors are copied.
    original : path, optional
        The checkpoint that was measured, if it is no longer where it was.
    checkpoint : str, optional
        Its label, in a run over several.
    dtype : {"float64", "float32", "float16", "bfloat16"}, optional
        Of rebuilt tensors; by default as in the original.
    max_shard_size : int
        Most bytes of values in a file.

    Returns
    -------
    list of Path
        The files written; the last is the one to open.

    Raises
    ------
    ResultsError, RebuildError, CheckpointError
        Bad input, or a disk that is full; one line, and nothing is written.
    """
    from threadpoolctl import threadpool_limits

    codes = StoredCodes(open_run(directory), checkpoint, level)
    if dtype is not None and dtype not in DTYPES:
        raise RebuildError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if max_shard_size < 1:
        raise RebuildError(f"max-shard-size must be at least 1, not {max_shard_size}")
    source = open_original(codes.member, original)
    rebuilt = codes.norms if level else {}
    planned = [_planned(entry, entry.name in rebuilt, dtype) for entry in source.tensors]
    output = lay_out(Path(out), planned, max_shard_size)
    # One thread: the last bit of a product may depend on how many share it.
    with threadpool_limits(1), whole_files(output, _metadata(source, codes)) as files:
        _write(files, output, source, codes, rebuilt)
    return output.paths


def rebuilt_blocks(
    entry: TensorEntry, code: AffineCode, norm: float
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Read a tensor's rows, code and decode them, block by block.

    Parameters
    ----------
    entry : TensorEntry
    code : AffineCode
        From its rows to some level and back.
    norm : float
        Frobenius norm that its weights have.

    Yields
    ------
    start : int
        First row of the block.
    rows : ndarray of shape (n, width), float64
        Rebuilt rows, valid until the next block is asked for.

    Raises
    ------
    RebuildError
        After the last block, if the weights have another norm: they are not those that were measured.
    """
    decode = _decoder(code)
    energy = 0.0
    for start, rows in blocks_of(entry):
        energy += float(np.vdot(rows, rows))
        yield start, decode(rows)
    check_norm(entry, energy, norm)


def check_norm(entry: TensorEntry, energy: float, norm: float) -> None:
    """Raise a RebuildError unless a tensor's sum of squares is that of the norm it was measured with."""
    if not abs(energy - norm**2) <= _SAME_ENERGY * norm**2:
        raise RebuildError(
            f"{entry.file.path}: tensor {quoted(entry.name)} has other values than when it was measured (norm "
            f"{energy**0.5:.9g}, not {norm:.9g}): give the checkpoint as it was, or run again"
        )


def blocks_of(entry: TensorEntry) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Read a tensor's rows as float64, block by block; each is valid until the next is asked for."""
    count = min(entry.rows, max(1, _BLOCK // entry.width))
    narrow = np.empty((count, entry.width), entry.value_dtype)
    wide = narrow if narrow.dtype == np.float64 else np.empty((count, entry.width))
    with RowReader(entry) as reader:
        for start in range(0, entry.rows, count):
            stop = min(start + count, entry.rows)
            rows = reader.read(start, stop, narrow)
            if wide is not narrow:
                np.copyto(wide[: len(rows)], rows)
            yield start, wide[: stop - start]


def _decoder(code: AffineCode) -> Callable[[Array], Array]:
    """Code and decode a block of rows, in memory that is kept between blocks."""
    encoder, matrix = np.ascontiguousarray(code.encoder), np.ascontiguousarray(code.decoder)
    held: list[Array] = []

    def decode(rows: Array) -> Array:
        if not held:
            held.extend((np.empty((len(rows), encoder.shape[1])), np.empty_like(rows)))
        codes, rebuilt = held[0][: len(rows)], held[1][: len(rows)]
        np.matmul(rows, encoder, out=codes)
        codes -= code.origin
        np.matmul(codes, matrix, out=rebuilt)
        rebuilt += code.offset
        return rebuilt

    return decode


def _planned(entry: TensorEntry, rebuilt: bool, dtype: str | None) -> Planned:
    if rebuilt:
        return Planned(entry.name, entry.dtype if dtype is None else DTYPES[dtype], entry.shape)
    why = raw_refusal(entry)
    if why is not None:
        raise RebuildError(
            f"{entry.file.path}: tensor {quoted(entry.name)} can't be copied ({why}): save the checkpoint as "
            "safetensors and run again"
        )
    return Planned(entry.name, entry.dtype, entry.shape)


def _metadata(source: Checkpoint, codes: StoredCodes) -> dict[str, str]:
    """The original's own, and what the weights are; the size that an index may have said is its index's."""
    kept = {key: value for key, value in source.metadata.items() if key != "total_size"}
    return {**kept, LEVEL: str(codes.level), RUN: codes.digest, LABEL: codes.label}


def _write(
    files: list[BinaryIO],
    output: Output,
    source: Checkpoint,
    codes: StoredCodes,
    rebuilt: Mapping[str, Any],
) -> None:
    sources = {entry.name: entry for entry in source.tensors}
    for stream, file in zip(files, output.files, strict=True):
        for planned in file.tensors:
            entry = sources[planned.name]
            if planned.name not in rebuilt:
                for piece in raw_values(entry):
                    stream.write(piece)
                continue
            target = stored_dtype(STORED[planned.dtype])
            code = codes.code(entry.name, entry.width)
            for _, rows in rebuilt_blocks(entry, code, rebuilt[entry.name]):
                stream.write(_rounded(rows, target).view(np.uint8).data)


def _rounded(rows: Array, target: np.dtype[Any]) -> NDArray[Any]:
    """Round to a type; what is beyond its largest number becomes that, for nothing rebuilt is infinite."""
    if target.itemsize > 2 or target.name == "bfloat16":
        return rows.astype(target)
    import ml_dtypes

    most = float(ml_dtypes.finfo(target).max)
    return np.clip(rows, -most, most).astype(target)
