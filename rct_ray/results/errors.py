"""What goes wrong with a run directory, in one line for the user."""


class ResultsError(ValueError):
    """A run directory or a table cannot be written or read; the message says what, where and what to do."""
