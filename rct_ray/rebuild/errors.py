"""What goes wrong with rebuilding, in one line for the user."""


class RebuildError(ValueError):
    """Weights that can't be rebuilt or compared; the message says what, where and what to do."""
