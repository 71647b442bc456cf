"""The log of a run for machines: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def log_line(event: str, values: Mapping[str, Any]) -> str:
    """An event as a line of JSON: `time` (UTC, ISO 8601), `event`, and the values it has."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    # Escaped to ASCII: no name from a file can end the line or drive the terminal it is read on.
    return json.dumps({"time": now, "event": event, **values})
