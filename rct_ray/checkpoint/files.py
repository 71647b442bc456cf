"""Opening a file of a checkpoint and reading exact ranges of its bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rct_ray.checkpoint.catalogue import FileInfo
from rct_ray.checkpoint.errors import CheckpointError


def unreadable(path: str, fault: OSError | ValueError) -> CheckpointError:
    """Turn what the operating system says about a path into this room's error.

    Parameters
    ----------
    path : str
        The path asked for.
    fault : OSError or ValueError
        What came of it; ``os.open`` raises the latter for a null byte.

    Returns
    -------
    CheckpointError
        To be raised.
    """
    system = fault if isinstance(fault, OSError) else None
    what = system.strerror if system is not None and system.strerror else str(fault)
    failing = system is not None and system.errno in (errno.EIO, errno.ESTALE)
    advice = "check its disk or mount" if failing else "give a checkpoint that exists and can be read"
    said = system.errno if system is not None else None
    return CheckpointError(f"{path}: {what[:1].lower()}{what[1:]}; {advice}", said)


def open_regular(path: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading.

    Parameters
    ----------
    path : str
        Its path.

    Returns
    -------
    fd : int
        The open file; the caller closes it.
    status : os.stat_result
        Of the open file itself, so nothing can be swapped in between.
    """
    try:
        # O_NONBLOCK: a named pipe must be refused, not waited for. It changes nothing for a regular file.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as fault:
        raise unreadable(path, fault) from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise CheckpointError(f"{path}: not a regular file; give a file or a directory of files")
    return fd, status


def read_into(fd: int, view: memoryview, offset: int, path: str) -> None:
    """Fill a byte buffer from an offset of a file, however many calls it takes.

    Parameters
    ----------
    fd : int
        An open file.
    view : memoryview
        Writable bytes; all of them are filled.
    offset : int
        First byte in the file.
    path : str
        For the message.
    """
    while view.nbytes:
        try:
            got = os.preadv(fd, (view,), offset)
        except OSError as fault:
            raise unreadable(path, fault) from None
        if got == view.nbytes:
            return
        if not got:
            raise CheckpointError(
                f"{path}: truncated while being read: {view.nbytes} more bytes were expected; copy it anew"
            )
        view = view[got:]
        offset += got


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file whose header is being read.

    Attributes
    ----------
    path : str
        Absolute path.
    fd : int
        The open file.
    size : int
        Bytes.
    mtime_ns : int
        Time of the last change.
    """

    path: str
    fd: int
    size: int
    mtime_ns: int

    def read(self, offset: int, count: int) -> bytes:
        """Return exactly `count` bytes from `offset` on.

        Parameters
        ----------
        offset, count : int
            The range of bytes.

        Returns
        -------
        bytes
            The bytes.
        """
        buffer = bytearray(count)
        read_into(self.fd, memoryview(buffer), offset, self.path)
        return bytes(buffer)

    def info(self, header: bytes) -> FileInfo:
        """Describe the file.

        Parameters
        ----------
        header : bytes
            The bytes whose digest is kept.

        Returns
        -------
        FileInfo
            The description.
        """
        return FileInfo(self.path, self.size, self.mtime_ns, hashlib.sha256(header).hexdigest())


@contextmanager
def opened(path: str) -> Iterator[OpenFile]:
    """Open a file that must not be empty, for the reading of its header.

    Parameters
    ----------
    path : str
        Its path.

    Yields
    ------
    OpenFile
        The file, closed on leaving.
    """
    fd, status = open_regular(path)
    try:
        if not status.st_size:
            raise CheckpointError(f"{path}: empty file; copy or save it anew")
        yield OpenFile(str(Path(path).absolute()), fd, status.st_size, status.st_mtime_ns)
    finally:
        os.close(fd)
