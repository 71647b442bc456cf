"""Reading blocks of a tensor's rows into the caller's buffer, as float32 or float64."""

from __future__ import annotations

import mmap
import os
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rct_ray.checkpoint.catalogue import TensorEntry
from rct_ray.checkpoint.deflate import DeflatedStream
from rct_ray.checkpoint.dtypes import stored_dtype, widening_table
from rct_ray.checkpoint.errors import CheckpointError, quoted
from rct_ray.checkpoint.files import open_regular, read_into

# Narrow values pass through a buffer of this size: small enough to stay in the cache until they are widened.
_SCRATCH_BYTES = 1 << 18


class _Values(Protocol):
    """The values of a tensor as a range of bytes."""

    def fill(self, view: memoryview, start: int) -> None: ...


class _PlainValues:
    """Values that lie in the file as they are."""

    __slots__ = ("_fd", "_offset", "_path")

    def __init__(self, fd: int, entry: TensorEntry) -> None:
        self._fd, self._offset, self._path = fd, entry.offset, entry.file.path

    def fill(self, view: memoryview, start: int) -> None:
        read_into(self._fd, view, self._offset + start, self._path)


class _DeflatedValues:
    """Values of a deflated member, behind the member's own header."""

    __slots__ = ("_header", "_stream")

    def __init__(self, fd: int, entry: TensorEntry) -> None:
        member = entry.deflated
        assert member is not None
        self._header = member.header
        plain = member.header + entry.nbytes
        where = f"{entry.file.path}: tensor {quoted(entry.name)}"
        self._stream = DeflatedStream(fd, where, entry.offset, member.packed, plain, member.crc)

    def fill(self, view: memoryview, start: int) -> None:
        self._stream.fill(view, self._header + start)


class _Rows(Protocol):
    """The rows of a tensor's matrix."""

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None: ...

    def pick(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None: ...


class _RowMajor:
    """Rows that lie one after the other."""

    __slots__ = ("_codes", "_direct", "_row_bytes", "_scratch", "_stored", "_table", "_values")

    def __init__(self, values: _Values, entry: TensorEntry, stored: np.dtype[Any]) -> None:
        self._values, self._stored = values, stored
        self._table = widening_table(entry.stored)
        self._codes = np.dtype(f"u{stored.itemsize}")
        self._row_bytes = entry.width * stored.itemsize
        self._direct = stored == entry.value_dtype
        self._scratch = np.empty(0, np.uint8)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        if self._direct:
            self._values.fill(out.data.cast("B"), start * self._row_bytes)
            return
        step = max(1, _SCRATCH_BYTES // self._row_bytes)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            self._widen(first, out[first - start : last - start])

    def _widen(self, start: int, out: NDArray[Any]) -> None:
        count = len(out) * self._row_bytes
        if len(self._scratch) < count:
            self._scratch = np.empty(count, np.uint8)
        raw = self._scratch[:count]
        self._values.fill(raw.data, start * self._row_bytes)
        if self._table is None:
            np.copyto(out, raw.view(self._stored).reshape(out.shape))
        else:
            # Every code is in the table: "wrap" only spares NumPy the check (and "raise" a copy of out).
            np.take(self._table, raw.view(self._codes).reshape(out.shape), out=out, mode="wrap")

    def pick(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        # Neighbours are read together; the runs of consecutive rows end where the distance is not one.
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, last in zip([0, *ends.tolist()], [*ends.tolist(), len(rows)], strict=True):
            self.read(int(rows[first]), int(rows[first]) + last - first, out[first:last])


class _Strided:
    """Rows of an array whose elements lie apart: Fortran-ordered, or a view of another.

    The file is mapped: a block of rows is then a strided copy, in memory that the system may drop at once.
    A deflated one cannot be mapped and is held decompressed, all of it.
    """

    __slots__ = ("_array", "_entry", "_fd")

    def __init__(self, fd: int, entry: TensorEntry, stored: np.dtype[Any]) -> None:
        self._fd, self._entry = fd, entry
        buffer: mmap.mmap | NDArray[np.uint8]
        if entry.deflated is None:
            end = entry.offset + _reach(entry, stored.itemsize)
            buffer, offset = mmap.mmap(fd, end, access=mmap.ACCESS_READ), entry.offset
        else:
            buffer, offset = np.empty(entry.nbytes, np.uint8), 0
            _DeflatedValues(fd, entry).fill(buffer.data, 0)
        self._array: NDArray[Any] = np.ndarray(entry.shape, stored, buffer, offset, entry.strides, order="F")

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        self._still_whole()
        if not self._entry.stacked:
            np.copyto(out.reshape(-1, *self._array.shape[1:]), self._array[start:stop])
            return
        depth = self._array.shape[1]
        row = start
        while row < stop:
            expert, first = divmod(row, depth)
            count = min(depth - first, stop - row)
            np.copyto(out[row - start : row - start + count], self._array[expert, first : first + count])
            row += count

    def pick(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        self._still_whole()
        if self._entry.stacked:
            np.copyto(out, self._array[np.divmod(rows, self._array.shape[1])])
        else:
            np.copyto(out.reshape(-1, *self._array.shape[1:]), self._array[rows])

    def _still_whole(self) -> None:
        # Touching a mapped page behind the file's end kills the process, so a truncation is looked for first.
        if os.fstat(self._fd).st_size < self._entry.file.size:
            raise CheckpointError(f"{self._entry.file.path}: truncated while being read; copy it anew")


def _reach(entry: TensorEntry, itemsize: int) -> int:
    if entry.strides is None:
        return entry.nbytes
    return sum((axis - 1) * step for axis, step in zip(entry.shape, entry.strides, strict=True)) + itemsize


class RowReader:
    """Reads rows of one tensor, folded to its matrix; a context manager, for one thread.

    F32 and F64 in the machine's byte order go from the file straight into the caller's buffer; narrower and
    swapped values pass through a small buffer that is kept between calls.

    Parameters
    ----------
    entry : TensorEntry
        A tensor that can be analysed (its `skip_reason` is None).

    Raises
    ------
    CheckpointError
        If the tensor cannot be analysed or its file is no longer the one that was opened; when leaving the
        ``with`` block, if the file was changed while it was read.
    """

    __slots__ = ("_dtype", "_entry", "_fd", "_rows", "_shape")

    def __init__(self, entry: TensorEntry) -> None:
        if entry.skip_reason is not None:
            raise CheckpointError(
                f"{entry.file.path}: tensor {quoted(entry.name)} has no rows to read: {entry.skip_reason}; "
                "leave it out"
            )
        self._entry = entry
        self._shape = (entry.rows, entry.width)
        self._dtype = entry.value_dtype
        self._rows: _Rows | None = None
        self._fd, status = open_regular(entry.file.path)
        try:
            self._check_unchanged(status, "since it was opened")
            self._rows = _rows_of(self._fd, entry)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._fd >= 0:
                self._check_unchanged(os.fstat(self._fd), "while it was read")
        finally:
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def close(self) -> None:
        """Close the file; reading is over."""
        self._rows = None  # a mapped file has a descriptor of its own
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> NDArray[Any]:
        """Read rows `start` to `stop`.

        Parameters
        ----------
        start, stop : int
            The range of rows, ``0 <= start <= stop <= rows``.
        out : numpy.ndarray
            At least ``stop - start`` rows of the matrix's width, C-contiguous, of the entry's `value_dtype`.

        Returns
        -------
        numpy.ndarray
            ``out[: stop - start]``, filled.
        """
        if not 0 <= start <= stop <= self._shape[0]:
            raise ValueError(f"rows [{start}, {stop}) are not within the {self._shape[0]} rows")
        source, block = self._open_rows(), self._block(out, stop - start)
        if stop > start:
            source.read(start, stop, block)
        return block

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> NDArray[Any]:
        """Read chosen rows, neighbours in one go.

        Parameters
        ----------
        rows : numpy.ndarray of int64
            Row numbers, ascending.
        out : numpy.ndarray
            As for `read`, at least ``len(rows)`` rows.

        Returns
        -------
        numpy.ndarray
            ``out[: len(rows)]``, filled.
        """
        source, block = self._open_rows(), self._block(out, len(rows))
        if len(rows) == 0:
            return block
        if rows[0] < 0 or rows[-1] >= self._shape[0] or (np.diff(rows) < 0).any():
            raise ValueError(f"rows are not ascending numbers of the {self._shape[0]} rows")
        source.pick(rows, block)
        return block

    def _open_rows(self) -> _Rows:
        if self._rows is None:
            raise ValueError("the reader is closed")
        return self._rows

    def _block(self, out: NDArray[Any], count: int) -> NDArray[Any]:
        if out.ndim != 2 or out.shape[1] != self._shape[1] or len(out) < count:
            raise ValueError(f"out is {out.shape}, needed is ({count}, {self._shape[1]}) or more rows")
        if out.dtype != self._dtype or not out.flags.carray:
            raise ValueError(f"out must be a writable C-contiguous array of {self._dtype}")
        return out[:count]

    def _check_unchanged(self, status: os.stat_result, when: str) -> None:
        file = self._entry.file
        if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
            raise CheckpointError(f"{file.path}: changed {when}; run again when nothing writes to it")


def _rows_of(fd: int, entry: TensorEntry) -> _Rows:
    stored = stored_dtype(entry.stored)
    if entry.fortran or entry.strides is not None:
        return _Strided(fd, entry, stored)
    values: _Values = _PlainValues(fd, entry) if entry.deflated is None else _DeflatedValues(fd, entry)
    return _RowMajor(values, entry, stored)
