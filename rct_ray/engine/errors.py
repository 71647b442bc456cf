"""What can go wrong between a plan and its results; each in one line for the user."""


class PlanError(ValueError):
    """A checkpoint and settings that leave nothing to do, or ask for what can't be."""


class NonFiniteError(ValueError):
    """Weights that are NaN or infinite where the run can't do without them."""


class AddressError(ValueError):
    """No Ray cluster answers where one was said to be."""


class EngineError(RuntimeError):
    """Workers failed, after every retry, or never came; says at which tensor."""


class Interrupted(Exception):  # noqa: N818  (no error: the run is being stopped)
    """A shard was given up because the run is stopping."""
