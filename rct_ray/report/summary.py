"""A run as JSON, for `--json`."""

from __future__ import annotations

import json
import math
from typing import Any, TextIO

from rct_ray.report.rows import rows_of
from rct_ray.report.words import conclusions
from rct_ray.results import Run


def write_summary(run: Run, file: TextIO) -> None:
    """Write manifest, conclusions on each model, and every level of every tower as one JSON object.

    Levels are written as they are read, for there may be hundreds of thousands. Infinity becomes null.
    """
    models: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(run.levels_of(scope="model")):
        models.setdefault(row["checkpoint"], []).append(row)
    head = {
        "directory": str(run.path),
        "manifest": dict(run.manifest),
        "conclusions": {label: conclusions(rows) for label, rows in models.items()},
    }
    file.write(json.dumps(head).removesuffix("}") + ', "levels": [')
    for number, row in enumerate(rows_of(run.levels)):
        plain = {name: _plain(value) for name, value in row.items()}
        file.write((", " if number else "") + json.dumps(plain))
    file.write("]}\n")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
