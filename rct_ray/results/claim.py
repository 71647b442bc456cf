"""The right to write a run in a directory: who holds it, and how the directory is put back."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import NoReturn

from rct_ray.results.errors import ResultsError
from rct_ray.results.files import sync_directory
from rct_ray.results.layout import MANIFEST, MARKER, remains
from rct_ray.results.units import count_units

_LOCK_TAKEN = {errno.EWOULDBLOCK, errno.EACCES}
_LOCK_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


class Claim:
    """A directory claimed for one run, by a locked marker file in it.

    The marker says that whatever lies beside it is unfinished, so that what a killed run left can be told
    from a user's own files. Its lock dies with the process, so a live run can be told from a dead one.

    Parameters
    ----------
    directory : Path
        Where the run is to be written. It, and its parents, need not exist.
    resume : bool
        Whether records of finished units in it are welcome; without, they refuse the claim.
    """

    def __init__(self, directory: Path, *, resume: bool = False) -> None:
        self.directory = directory
        self.resume = resume
        self.created: list[Path] = []
        self._lock: int | None = None
        self._fresh = False
        self._ours = False

    @property
    def held(self) -> bool:
        """Whether this process holds the directory."""
        return self._lock is not None and self._ours

    def take(self) -> None:
        """Claim the directory, creating it or clearing away what a killed run left in it.

        Raises
        ------
        ResultsError
            The directory holds something else, is being written by another run, or cannot be written.
            It is then as it was.
        """
        try:
            self._refuse_occupied()
            self._create_directories()
            self._lock_marker()
            # Once more, now that nobody else can be writing.
            self._refuse_occupied()
            self._ours = True
            self._sweep()
        except OSError as error:
            self.undo()
            raise ResultsError(f"cannot write to {self.directory}: {error.strerror or error}") from error
        except BaseException:
            self.undo()
            raise

    def release(self) -> None:
        """Remove the marker: the directory is finished, or empty."""
        if self._ours or self._fresh:
            (self.directory / MARKER).unlink(missing_ok=True)
        self._ours = self._fresh = False
        self._unlock()

    def leave(self) -> None:
        """Let go of the directory, with its records of finished units in it, for a run that resumes."""
        with contextlib.suppress(OSError):
            self._sweep()
        self._ours = self._fresh = False
        self.created = []
        self._unlock()

    def undo(self) -> None:
        """Put the directory back as it was found, as far as the system lets us.

        Records of finished units that were there before stay there.
        """
        # Files are removed only once they are known to be ours, and the marker after them: whatever stops
        # this half way, the next run can tell what is left.
        with contextlib.suppress(OSError):
            if self._ours:
                self._sweep()
            self.release()
        self._unlock()
        while self.created:
            with contextlib.suppress(OSError):
                self.created.pop().rmdir()

    def sync_parents(self) -> None:
        """Make the directories that were created durable."""
        for directory in self.created:
            sync_directory(directory.parent)

    def _refuse_occupied(self) -> None:
        directory = self.directory
        if not os.path.lexists(directory):
            return
        if not directory.is_dir():
            raise ResultsError(f"{directory} is not a directory; choose another --out")
        if (directory / MANIFEST).exists():
            if self.resume:
                raise ResultsError(f"{directory} holds a finished run: there is nothing to resume")
            raise ResultsError(f"{directory} holds another run; choose another --out")
        files, directories, foreign = remains(directory)
        if not (directory / MARKER).exists() and (files or directories or foreign):
            raise ResultsError(f"{directory} is not empty and holds no run; choose another --out")
        count = count_units(directory)
        if count and not self.resume:
            raise ResultsError(
                f"{directory} holds an unfinished run, {count} units of it done: go on with --resume, "
                "delete it, or choose another --out"
            )
        if foreign:
            other = foreign[0].relative_to(directory)
            raise ResultsError(
                f"{directory} holds an unfinished run and other files ({other}); "
                "move them or choose another --out"
            )

    def _create_directories(self) -> None:
        missing = [path for path in (self.directory, *self.directory.parents) if not path.exists()]
        for path in reversed(missing):
            self.created.append(path)
            try:
                path.mkdir()
            except FileExistsError:  # somebody else was faster, and keeps it
                self.created.remove(path)

    def _lock_marker(self) -> None:
        marker = self.directory / MARKER
        self._fresh = not marker.exists()
        descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock_descriptor(descriptor)
            # The other run may have finished, and removed this very marker, between opening and locking.
            if not (marker.exists() and os.path.samestat(os.fstat(descriptor), marker.stat())):
                self._refuse_busy()
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def _lock_descriptor(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCK_TAKEN:
                self._refuse_busy()
            # Without locks (some network file systems) only the marker itself protects the directory.
            if error.errno not in _LOCK_UNSUPPORTED:
                raise

    def _refuse_busy(self) -> NoReturn:
        self._fresh = False
        raise ResultsError(f"{self.directory} is being written by another run; choose another --out")

    def _sweep(self) -> None:
        files, directories, _ = remains(self.directory)
        for path in files:
            path.unlink()
        for path in directories:
            with contextlib.suppress(OSError):
                path.rmdir()

    def _unlock(self) -> None:
        if self._lock is not None:
            descriptor, self._lock = self._lock, None
            os.close(descriptor)
