"""What a run tells whoever watches it (the log, the metrics): an event's name, and plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Notice: TypeAlias = Callable[[str, Mapping[str, Any]], None]

RUN_STARTED = "run started"
UNIT_DONE = "unit done"
UNIT_FAILED = "unit failed"
RETRY = "retry"
CHECKPOINT_DONE = "checkpoint done"
CHECKPOINT_FAILED = "checkpoint failed"
RUN_FINISHED = "run finished"
EVENTS = (RUN_STARTED, UNIT_DONE, UNIT_FAILED, RETRY, CHECKPOINT_DONE, CHECKPOINT_FAILED, RUN_FINISHED)


def unheard(event: str, values: Mapping[str, Any]) -> None:
    """Tell nobody."""
