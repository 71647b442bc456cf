"""What can go wrong before a job runs; each in one line for the user."""


class SubmitError(ValueError):
    """A job that can't be sent, or isn't there."""
