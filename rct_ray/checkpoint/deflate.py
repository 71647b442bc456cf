"""Deflated values: a stream that is decompressed in bounded memory and never past what it promised."""

from __future__ import annotations

import os
import zlib

from rct_ray.checkpoint.errors import CheckpointError

_PACKED_CHUNK = 64 * 1024
_PLAIN_CHUNK = 256 * 1024

MOST_EXPANSION = 1032
"""Deflate turns one byte into at most this many."""


class DeflatedStream:
    """A deflated range of a file, read forward; going back starts it again.

    Parameters
    ----------
    fd : int
        The open file.
    path : str
        For messages.
    offset : int
        First compressed byte.
    packed : int
        Compressed bytes.
    plain : int
        Bytes they decompress to, checked when the last of them is read.
    crc : int
        CRC-32 of those, checked then too.
    """

    def __init__(self, fd: int, path: str, offset: int, packed: int, plain: int, crc: int) -> None:
        self._fd, self._path, self._offset = fd, path, offset
        self._packed, self._plain, self._crc = packed, plain, crc
        self._rewind()

    def _rewind(self) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._taken = 0
        self._position = 0
        self._running_crc = 0

    def fill(self, view: memoryview, start: int) -> None:
        """Fill a buffer with the decompressed bytes from `start` on.

        Parameters
        ----------
        view : memoryview
            Writable bytes; all of them are filled.
        start : int
            First decompressed byte.
        """
        if start < self._position:
            self._rewind()
        while self._position < start:
            self._next(min(start - self._position, _PLAIN_CHUNK))
        done = 0
        while done < view.nbytes:
            piece = self._next(min(view.nbytes - done, _PLAIN_CHUNK))
            view[done : done + len(piece)] = piece
            done += len(piece)
        if self._position == self._plain:
            self._finish()

    def _next(self, most: int) -> bytes:
        while True:
            packed = self._inflater.unconsumed_tail or self._take()
            piece = self._inflate(packed, most)
            if piece:
                self._position += len(piece)
                self._running_crc = zlib.crc32(piece, self._running_crc)
                return piece
            if self._inflater.eof or not packed:
                raise CheckpointError(
                    f"{self._path}: deflated member ends after {self._position} of {self._plain} bytes; "
                    "save it anew"
                )

    def _finish(self) -> None:
        """Read the stream's end mark: a bomb goes on instead, and is left there."""
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._take()
            if self._inflate(packed, 1):
                raise CheckpointError(
                    f"{self._path}: deflated member goes on after the {self._plain} bytes it promised; "
                    "do not trust it"
                )
            if not packed and not self._inflater.eof:
                raise CheckpointError(f"{self._path}: deflated member has no end; save it anew")
        if self._running_crc != self._crc:
            raise CheckpointError(f"{self._path}: deflated member fails its checksum; copy it anew")

    def _inflate(self, packed: bytes, most: int) -> bytes:
        try:
            return self._inflater.decompress(packed, most)
        except zlib.error as fault:
            raise CheckpointError(
                f"{self._path}: deflated member is damaged: {fault}; copy it anew"
            ) from None

    def _take(self) -> bytes:
        count = min(_PACKED_CHUNK, self._packed - self._taken)
        try:
            packed = os.pread(self._fd, count, self._offset + self._taken)
        except OSError as fault:
            raise CheckpointError(f"{self._path}: {fault.strerror}; copy it anew", fault.errno) from None
        self._taken += len(packed)
        return packed
