"""Files that are whole or absent: atomic replacement, durability, digests."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rct_ray.results.errors import ResultsError

TEMPORARY_SUFFIX = ".tmp"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` only once it is whole and on disk.

    Parameters
    ----------
    path : Path
        The file to be. Until the block ends without an error it is not touched; after an error nothing
        of the new file remains.

    Yields
    ------
    BinaryIO
        The new file, under a temporary name in the same directory.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Refuse a file that can't be written, before the work of what is to be in it.

    Raises
    ------
    ResultsError
        If it is a directory, or in none that exists and may be written to.
    """
    if path.is_dir():
        raise ResultsError(f"{path}: can't be written (it is a directory)")
    if not path.parent.is_dir():
        raise ResultsError(f"{path}: can't be written (there is no directory {path.parent})")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ResultsError(f"{path}: can't be written (no permission in {path.parent})")


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable: what was created, renamed or removed in it stays so."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
