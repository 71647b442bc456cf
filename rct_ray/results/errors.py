"""What goes wrong with a run directory, in one line for the user."""

import errno

_SYSTEM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.ESTALE}


class ResultsError(ValueError):
    """A run directory or a table cannot be written or read; the message says what, where and what to do."""


def system_failed(error: BaseException) -> bool:
    """Whether the system is behind an error (a full disk, a failing one), and not the input."""
    # An error of reading says so itself, since its cause would not survive the way from a worker.
    said = getattr(error, "errno", None) or getattr(error.__cause__, "errno", None)
    return said in _SYSTEM
