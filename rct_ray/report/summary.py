"""A run as plain JSON types, for `--json`."""

from __future__ import annotations

import math
from typing import Any

from rct_ray.report.words import conclusions
from rct_ray.results import Run


def summary(run: Run) -> dict[str, Any]:
    """Manifest, every level of every tower, and the conclusions on each model (inf becomes null)."""
    levels = [{name: _plain(value) for name, value in row.items()} for row in run.levels.to_pylist()]
    models: dict[str, list[dict[str, Any]]] = {}
    for row in run.levels_of(scope="model").to_pylist():
        models.setdefault(row["checkpoint"], []).append(row)
    return {
        "directory": str(run.path),
        "manifest": dict(run.manifest),
        "levels": levels,
        "conclusions": {label: conclusions(rows) for label, rows in models.items()},
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
