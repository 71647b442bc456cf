"""NumPy's ``.npy`` format: one array, whose header is read by NumPy's own public functions."""

from __future__ import annotations

import io
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from rct_ray.checkpoint.catalogue import DeflatedMember, FileContents, FileInfo, TensorEntry
from rct_ray.checkpoint.dtypes import name_of, stored_as
from rct_ray.checkpoint.errors import CheckpointError, quoted, reason
from rct_ray.checkpoint.files import opened

LONGEST_HEADER = 16_384
"""More bytes than a header within NumPy's own limit (10,000) takes with its length and magic."""


class NpyHeader(NamedTuple):
    """What an ``.npy`` header says.

    Attributes
    ----------
    dtype : numpy.dtype
        The element type.
    shape : tuple of int
        The shape.
    fortran : bool
        Whether the first axis varies fastest.
    length : int
        Bytes before the first value.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values; pickled objects have no size that a header tells."""
        return 0 if self.dtype.hasobject else prod(self.shape) * self.dtype.itemsize


def parse_npy_header(head: bytes, where: str) -> NpyHeader:
    """Parse the first bytes of an ``.npy`` file or member.

    Parameters
    ----------
    head : bytes
        At most `LONGEST_HEADER` of them.
    where : str
        The file, for the message.

    Returns
    -------
    NpyHeader
        The header, whose shape is made of sizes.
    """
    stream = io.BytesIO(head)
    try:
        version = npy_format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"format version {version[0]}.{version[1]} is not read")
    except Exception as fault:
        # NumPy parses a Python literal here; what that raises depends on the text.
        raise CheckpointError(f"{where}: npy header: {reason(fault)}; save it anew") from None
    if not all(type(axis) is int and axis >= 0 for axis in shape):
        raise CheckpointError(f"{where}: npy header: shape is not a tuple of sizes; save it anew")
    return NpyHeader(dtype, shape, fortran, stream.tell())


def npy_entry(
    name: str,
    info: FileInfo,
    header: NpyHeader,
    offset: int,
    room: int,
    deflated: DeflatedMember | None = None,
) -> TensorEntry:
    """Describe the array that a header announces.

    Parameters
    ----------
    name : str
        The tensor's name.
    info : FileInfo
        The file.
    header : NpyHeader
        The array's header.
    offset : int
        First byte of the values.
    room : int
        Bytes there are for the values, all of which they must take.
    deflated : DeflatedMember, optional
        Where the compressed values lie.

    Returns
    -------
    TensorEntry
        The entry.
    """
    dtype = header.dtype
    nbytes = room if dtype.hasobject else header.nbytes
    if nbytes > room:
        raise CheckpointError(
            f"{info.path}: array {quoted(name)} is truncated: header promises {nbytes} bytes of values, "
            f"there are {room}; copy it anew"
        )
    if nbytes < room:
        raise CheckpointError(
            f"{info.path}: {room - nbytes} bytes after the values of array {quoted(name)}; "
            "save one array a file"
        )
    fortran = header.fortran and len(header.shape) > 1
    stored = stored_as(dtype)
    return TensorEntry(name, info, name_of(dtype), header.shape, nbytes, offset, stored, fortran, deflated)


def read_npy(path: str) -> FileContents:
    """Read and check the header of an ``.npy`` file.

    Parameters
    ----------
    path : str
        The file; its name without the suffix names the tensor.

    Returns
    -------
    FileContents
        One tensor.
    """
    with opened(path) as file:
        head = file.read(0, min(file.size, LONGEST_HEADER))
        header = parse_npy_header(head, path)
        info = file.info(head[: header.length])
    entry = npy_entry(Path(path).stem, info, header, header.length, file.size - header.length)
    return FileContents(info, [entry], {})
