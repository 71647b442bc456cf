"""Angles between what the same tower spans at two checkpoints."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rct_ray.report.compare import Member
from rct_ray.results.tables import entries

Matrix: TypeAlias = npt.NDArray[np.float64]
Tower: TypeAlias = tuple[str, str, int]
# What level 1 of a fixed basis decodes by, which is stored once for all matrices of a width.
_FIXED = 0


def subspace_angles(
    first: Member, last: Member, towers: Container[Tower] | None = None
) -> list[dict[str, Any]]:
    """Principal angles between the directions of weights that each level keeps at two checkpoints.

    Components of a level are directions among those of the level below, so they are carried down to the weights
    first. Only learned levels with as many components in both are compared.

    Parameters
    ----------
    first, last : Member
    towers : container of (scope, name, width), optional
        Of which towers; of all, if not given. Thousands take a while: some 20 ms for 128 components.

    Returns
    -------
    list of dict
        ``scope``, ``name``, ``width``, ``level``, ``components``, and ``largest`` and ``mean`` angle, in degrees.
    """
    from scipy.linalg import subspace_angles as principal_angles

    before, after = _stored(first), _stored(last)
    found = []
    for tower in before.keys() & after.keys():
        if towers is not None and tower not in towers:
            continue
        for level, learned in before[tower].items():
            if level == _FIXED or learned.shape != after[tower].get(level, learned[:0]).shape:
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
    """The matrix of each level's directions, by tower and level; of a fixed basis only the angles within it."""
    table = member.run.decoders
    amplitudes = member.run.manifest["configuration"]["metric"] == "amplitude"
    columns = [table[name].to_pylist() for name in ("checkpoint", "scope", "name", "width", "level", "kind")]
    stored: dict[Tower, dict[int, Matrix]] = {}
    for place, (checkpoint, scope, name, width, level, kind) in enumerate(zip(*columns, strict=True)):
        if checkpoint != member.label or kind not in ("basis", "gaussians", "components"):
            continue
        of_tower = stored.setdefault((scope, name, width), {})
        if kind == "components":
            of_tower[level] = _matrix(table, place)
        elif (kind == "basis" and _FIXED not in of_tower) or (kind == "gaussians" and amplitudes):
            # Both checkpoints have the same, so only what it does to angles matters: K numbers, not d, a function.
            of_tower[_FIXED] = _triangle(_matrix(table, place))
    return stored


def _triangle(basis: Matrix) -> Matrix:
    """K x K numbers between which angles are as between the K functions of a basis."""
    triangle: Matrix = np.linalg.qr(basis.T)[1]
    return triangle.T


def _matrix(table: Any, place: int) -> Matrix:
    row = table.slice(place, 1).combine_chunks()
    return entries(row["values"].chunk(0).flatten()).reshape(
        row["rows"][0].as_py(), row["columns"][0].as_py()
    )


def _down_to_weights(stored: Stored, tower: Tower, level: int) -> Matrix | None:
    """Directions of a level as rows over the weights' columns, or within a fixed basis; None if not all known."""
    _, _, width = tower
    learned = stored[tower]
    basis = learned.get(1, stored.get(("width", str(width), width), {}).get(_FIXED))
    below: Sequence[Matrix | None] = [basis, *(learned.get(one) for one in range(2, level + 1))]
    directions: Matrix | None = None
    for matrix in below:
        if matrix is None or (directions is not None and matrix.shape[1] != len(directions)):
            return None
        directions = matrix if directions is None else matrix @ directions
    return directions
