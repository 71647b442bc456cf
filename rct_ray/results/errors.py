"""What goes wrong with a run directory, in one line for the user."""

import errno

_SYSTEM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.ESTALE}


class ResultsError(ValueError):
    """A run directory or a table cannot be written or read; the message says what, where and what to do."""


def system_failed(error: BaseException) -> bool:
    """Whether the system is behind an error (a full disk, a failing one), and not the input."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in _SYSTEM
