"""The bytes of a tensor as they are stored, for copying."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rct_ray.checkpoint.catalogue import TensorEntry
from rct_ray.checkpoint.deflate import DeflatedStream
from rct_ray.checkpoint.dtypes import BITS
from rct_ray.checkpoint.errors import CheckpointError, quoted
from rct_ray.checkpoint.files import open_regular, read_into

_CHUNK = 8 << 20


def raw_refusal(entry: TensorEntry) -> str | None:
    """Say why a tensor's bytes are not those that a safetensors file would hold; None when they are."""
    if entry.dtype not in BITS:
        return f"safetensors has no dtype for {entry.dtype}"
    if entry.fortran:
        return "it is stored in Fortran order"
    # Of integers in NumPy's files the catalogue does not keep the byte order.
    if (
        entry.file.path.lower().endswith((".npy", ".npz"))
        and BITS[entry.dtype] > 8
        and entry.stored[:1] != "<"
    ):
        return f"it is {entry.dtype} in a NumPy file, whose byte order may be another"
    return None


def raw_values(entry: TensorEntry) -> Iterator[memoryview]:
    """Read the bytes of a tensor's values, in pieces that are valid until the next is asked for.

    Parameters
    ----------
    entry : TensorEntry
        One that `raw_refusal` does not refuse.

    Raises
    ------
    CheckpointError
        If its file can't be read, or is no longer the one that was opened.
    """
    buffer = memoryview(bytearray(min(_CHUNK, entry.nbytes)))
    fd, status = open_regular(entry.file.path)
    try:
        _check_unchanged(entry, status)
        stream = _stream(fd, entry)
        for start in range(0, entry.nbytes, _CHUNK):
            piece = buffer[: min(_CHUNK, entry.nbytes - start)]
            if stream is None:
                read_into(fd, piece, entry.offset + start, entry.file.path)
            else:
                assert entry.deflated is not None
                stream.fill(piece, entry.deflated.header + start)
            yield piece
        _check_unchanged(entry, os.fstat(fd))
    finally:
        os.close(fd)


def _stream(fd: int, entry: TensorEntry) -> DeflatedStream | None:
    member = entry.deflated
    if member is None:
        return None
    where = f"{entry.file.path}: tensor {quoted(entry.name)}"
    return DeflatedStream(fd, where, entry.offset, member.packed, member.header + entry.nbytes, member.crc)


def _check_unchanged(entry: TensorEntry, status: os.stat_result) -> None:
    file = entry.file
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise CheckpointError(f"{file.path}: changed while it was read; run again when nothing writes to it")
