"""What the page of a run draws: the figures of every tower, compact enough for thousands of tensors.

A figure is sent level by level as one array over checkpoints and towers: float32, or the smallest unsigned type
for counts, in base64. A level at which all checkpoints agree, as the weights themselves do, is sent once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rct_ray.report.progress import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from rct_ray.results import Run

Reals: TypeAlias = npt.NDArray[np.float64]

FIGURES = (
    "r2",
    "null_r2",
    "lift",
    "svd_bound_r2",
    "participation_ratio",
    "null_participation_ratio",
    "bits_per_weight",
)
COUNTS = ("params", "n_components")
_KEYS = ("checkpoint", "scope", "name", "width", "level")
_PER_TOWER = ("rows", "weights")
SCOPES = ("tensor", "width", "model")
# Where a tower has no fixed point.
NO_LEVEL = 255


def page_data(run: Run) -> dict[str, Any]:
    """Plain JSON types: checkpoints, towers, levels, and the figures as `unpacked` reads them.

    Parameters
    ----------
    run : Run

    Returns
    -------
    dict
        ``checkpoints`` (label, step), ``stages`` (by level), ``towers`` (columns scope, name, width, rows, weights;
        scope is the place in `SCOPES`), ``figures`` (by name: a packed array for each level) and ``fixed`` (packed:
        the level of each tower's fixed point, or `NO_LEVEL`).
    """
    table = run.levels.select([*_KEYS, *_PER_TOWER, "stage", *FIGURES, *COUNTS, "fixed_point"])
    keys = {name: table[name].to_pylist() for name in _KEYS}
    labels = [listed["label"] for listed in run.manifest["checkpoints"]]
    towers = _numbered(zip(keys["scope"], keys["name"], keys["width"], strict=True))
    places = {label: number for number, label in enumerate(labels)}
    of = np.array([places[label] for label in keys["checkpoint"]], dtype=np.int64)
    tower = np.array(
        [towers[key] for key in zip(keys["scope"], keys["name"], keys["width"], strict=True)], dtype=np.int64
    )
    level = np.array(keys["level"], dtype=np.int64)
    count = int(level.max(initial=0)) + 1

    def spread(name: str) -> Reals:
        """A column as levels x checkpoints x towers; NaN where there is none."""
        dense = np.full((count, len(labels), len(towers)), np.nan)
        dense[level, of, tower] = _reals(table, name)
        return dense

    fixed = np.nan_to_num(spread("fixed_point")) > 0
    return {
        "checkpoints": [
            {"label": printable(listed["label"]), "step": listed["step"]}
            for listed in run.manifest["checkpoints"]
        ],
        "stages": _stages(level, table["stage"].to_pylist(), count),
        "towers": {
            "scope": [SCOPES.index(scope) for scope, _, _ in towers],
            "name": [printable(name) for _, name, _ in towers],
            "width": [width for _, _, width in towers],
            **{name: [int(value) for value in _latest(spread(name)[0])] for name in _PER_TOWER},
        },
        "figures": {
            **{name: [_packed(part.astype(np.float32)) for part in spread(name)] for name in FIGURES},
            **{name: [_packed(_smallest(part)) for part in spread(name)] for name in COUNTS},
        },
        "fixed": _packed(np.where(fixed.any(0), fixed.argmax(0), NO_LEVEL).astype(np.uint8)),
    }


def unpacked(packed: Mapping[str, str], checkpoints: int, towers: int) -> npt.NDArray[Any]:
    """Return a packed array, checkpoints x towers, as the page reads it."""
    values = np.frombuffer(base64.b64decode(packed["data"]), np.dtype(packed["type"]).newbyteorder("<"))
    return np.broadcast_to(values.reshape(-1, towers), (checkpoints, towers))


def as_script(data: Any) -> str:
    """JSON that may stand in a script element: no name in it can end the element or begin a comment."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _packed(values: npt.NDArray[Any]) -> dict[str, str]:
    """Packed as rows of towers, one for each checkpoint, or one if all are the same."""
    raw = values.view(np.uint8).reshape(len(values), -1)
    sent = values[:1] if (raw == raw[:1]).all() else values
    little = np.ascontiguousarray(sent, dtype=values.dtype.newbyteorder("<"))
    return {"type": values.dtype.str[1:], "data": base64.b64encode(little.tobytes()).decode()}


def _smallest(counts: Reals) -> npt.NDArray[Any]:
    """Counts in the smallest type that holds them exactly; float64 where some are missing."""
    if np.isnan(counts).any():
        return counts
    kinds = (np.uint8, np.uint16, np.uint32)
    most = counts.max(initial=0)
    return counts.astype(next((kind for kind in kinds if most <= np.iinfo(kind).max), np.float64))


def _reals(table: pa.Table, name: str) -> Reals:
    # By way of Python's numbers: Arrow's own conversion would import pandas.
    return np.array([np.nan if value is None else value for value in table[name].to_pylist()], np.float64)


def _numbered(keys: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str, int], int]:
    return {key: number for number, key in enumerate(dict.fromkeys(keys))}


def _latest(values: Reals) -> Reals:
    """The last value of each tower that is known, of checkpoints x towers."""
    latest: Reals = values[0].copy()
    for row in values[1:]:
        latest = np.where(np.isnan(row), latest, row)
    return latest


def _stages(level: npt.NDArray[np.int64], stages: Sequence[str], count: int) -> list[str]:
    names = dict(zip(level.tolist(), stages, strict=True))
    return [names.get(number, "") for number in range(count)]
