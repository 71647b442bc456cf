"""Angles between what the same tower spans at two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rct_ray.report.compare import Member
from rct_ray.results.tables import entries

Matrix: TypeAlias = npt.NDArray[np.float64]
Tower: TypeAlias = tuple[str, str, int]
_SPANNING = ("basis", "components")


def subspace_angles(first: Member, last: Member) -> list[dict[str, Any]]:
    """Principal angles between the directions of weights that each level keeps at two checkpoints.

    Components of a level are directions among those of the level below, so they are carried down to the weights
    first. Only learned levels with as many components in both are compared.

    Returns
    -------
    list of dict
        ``scope``, ``name``, ``width``, ``level``, ``components``, and ``largest`` and ``mean`` angle, in degrees.
    """
    from scipy.linalg import subspace_angles as principal_angles

    before, after = _stored(first), _stored(last)
    found = []
    for tower in before.keys() & after.keys():
        for level, learned in before[tower].items():
            if level == 0 or learned.shape != after[tower].get(level, learned[:0]).shape:
                continue
            one, other = (_down_to_weights(stored, tower, level) for stored in (before, after))
            if one is None or other is None or one.shape != other.shape:
                continue
            angles = np.degrees(principal_angles(one.T, other.T))
            scope, name, width = tower
            found.append(
                {
                    "scope": scope,
                    "name": name,
                    "width": width,
                    "level": level,
                    "components": len(one),
                    "largest": float(angles.max()),
                    "mean": float(angles.mean()),
                }
            )
    return sorted(found, key=lambda row: (row["scope"], row["name"], row["width"], row["level"]))


Stored: TypeAlias = Mapping[Tower, Mapping[int, Matrix]]


def _stored(member: Member) -> Stored:
    """What levels learned: by tower and level, the matrix of a level's directions; level 0 is a fixed basis."""
    table = member.run.decoders
    columns = [table[name].to_pylist() for name in ("checkpoint", "scope", "name", "width", "level", "kind")]
    stored: dict[Tower, dict[int, Matrix]] = {}
    for place, (checkpoint, scope, name, width, level, kind) in enumerate(zip(*columns, strict=True)):
        if checkpoint == member.label and kind in _SPANNING:
            stored.setdefault((scope, name, width), {})[0 if kind == "basis" else level] = _matrix(
                table, place
            )
    return stored


def _matrix(table: Any, place: int) -> Matrix:
    row = table.slice(place, 1).combine_chunks()
    return entries(row["values"].chunk(0).flatten()).reshape(
        row["rows"][0].as_py(), row["columns"][0].as_py()
    )


def _down_to_weights(stored: Stored, tower: Tower, level: int) -> Matrix | None:
    """Directions of a level as rows over the columns of the weights; None where they are not all known."""
    _, _, width = tower
    learned = stored[tower]
    # A fixed basis is stored once for all matrices of a width.
    basis = learned.get(1, stored.get(("width", str(width), width), {}).get(0))
    below: Sequence[Matrix | None] = [basis, *(learned.get(one) for one in range(2, level + 1))]
    directions: Matrix | None = None
    for matrix in below:
        if matrix is None or (directions is not None and matrix.shape[1] != len(directions)):
            return None
        directions = matrix if directions is None else matrix @ directions
    return directions if directions is not None and directions.shape[1] == width else None
