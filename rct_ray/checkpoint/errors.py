"""The one exception of this room, and how names from files are shown in it."""

from __future__ import annotations

_LONGEST_NAME = 160


class CheckpointError(ValueError):
    """A checkpoint that cannot be read: one line that says what, where, and what to do.

    Names in a file are anyone's text, so whatever a terminal would not print as is (control characters,
    line ends, text direction marks, half surrogates) is escaped here, once, for every message.

    Attributes
    ----------
    errno : int or None
        What the operating system said, if it did; unlike a cause, it survives the way from a worker.
    """

    errno: int | None = None

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(_escape(message))
        if errno is not None:
            self.errno = errno


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(name: str) -> str:
    """Return a name from a file between quotes, cut when it is too long for a line.

    Parameters
    ----------
    name : str
        A tensor's, member's or key's name, as the file has it.

    Returns
    -------
    str
        The name for a message.
    """
    return f"'{name}'" if len(name) <= _LONGEST_NAME else f"'{name[:_LONGEST_NAME]}...'"


def reason(fault: Exception) -> str:
    """Return what a library said of a bad file, short enough for one line.

    Parameters
    ----------
    fault : Exception
        What it raised; the message may quote the whole file.

    Returns
    -------
    str
        The start of its first line, or the exception's name.
    """
    lines = str(fault).splitlines()
    return lines[0][:_LONGEST_NAME] if lines else type(fault).__name__
