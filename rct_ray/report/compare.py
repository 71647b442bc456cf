"""Checkpoints side by side: those of one run, or of several that were measured alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rct_ray.report.rows import rows_of
from rct_ray.report.words import fixed_point, honest_level
from rct_ray.results import ResultsError, Run

Key: TypeAlias = tuple[str, str, int]
Row: TypeAlias = Mapping[str, Any]
FIGURES = ("r2", "lift", "bits_per_weight", "participation_ratio")
# Settings that must be equal for figures to be of the same thing.
_ALIKE = ("tower", "metric", "null", "sample_rows")


@dataclass(frozen=True)
class Member:
    """One checkpoint of a comparison: its run, its label there, its step, and what to call it here."""

    run: Run
    label: str
    step: int | None
    name: str


@dataclass(frozen=True)
class Series:
    """One tower over the checkpoints.

    Attributes
    ----------
    scope, name, width
        As in `levels`.
    weights : list of int or None
        By checkpoint; None where the checkpoint has no such tower.
    stages : list of str
        By level.
    figures : mapping of str to lists
        ``figures[name][level][checkpoint]``; None where it is not known.
    fixed_points, honest_levels : list of int or None
        By checkpoint.
    """

    scope: str
    name: str
    width: int
    weights: list[int | None]
    stages: list[str]
    figures: Mapping[str, list[list[float | None]]]
    fixed_points: list[int | None]
    honest_levels: list[int | None]

    def change(self, figure: str, level: int) -> float | None:
        """The figure at the last checkpoint less that at the first; None if either is not known."""
        if level >= len(self.stages):
            return None
        values = self.figures[figure][level]
        first, last = values[0], values[-1]
        return None if first is None or last is None else last - first


def members_of(runs: Sequence[Run]) -> list[Member]:
    """The checkpoints of runs, in the order given.

    Raises
    ------
    ResultsError
        There are fewer than two, or the runs were not measured alike.
    """
    _check_alike(runs)
    members = [
        Member(run, listed["label"], listed["step"], listed["label"])
        for run in runs
        for listed in run.manifest["checkpoints"]
    ]
    if len(members) < 2:
        raise ResultsError(f"{runs[0].path} holds one checkpoint: give another run to compare it with")
    labels = [member.label for member in members]
    return [
        Member(one.run, one.label, one.step, f"{one.run.path}: {one.label}")
        if labels.count(one.label) > 1
        else one
        for one in members
    ]


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for setting in _ALIKE:
            one, other = (each.manifest["configuration"].get(setting) for each in (first, run))
            if one != other:
                raise ResultsError(
                    f"{run.path} was measured with {setting} {other}, {first.path} with {one}: "
                    "measure both alike to compare them"
                )


def series_of(members: Sequence[Member]) -> list[Series]:
    """Every tower over the checkpoints: tensors first, in the order of the tables, then widths and the model."""
    towers: dict[Key, list[list[Row]]] = {}
    places = {(id(member.run), member.label): place for place, member in enumerate(members)}
    columns = ["checkpoint", "scope", "name", "width", "level", "stage", "weights", *FIGURES, "fixed_point"]
    for run in {id(member.run): member.run for member in members}.values():
        for row in rows_of(run.levels.select(columns)):
            key = row["scope"], row["name"], row["width"]
            levels = towers.setdefault(key, [[] for _ in members])
            levels[places[id(run), row["checkpoint"]]].append(row)
    order = ("tensor", "width", "model")
    return [_series(key, towers[key]) for key in sorted(towers, key=lambda key: order.index(key[0]))]


def _series(key: Key, towers: Sequence[Sequence[Row]]) -> Series:
    scope, name, width = key
    longest = max(towers, key=len)
    return Series(
        scope=scope,
        name=name,
        width=width,
        weights=[tower[0]["weights"] if tower else None for tower in towers],
        stages=[row["stage"] for row in longest],
        figures={
            figure: [
                [tower[level][figure] if level < len(tower) else None for tower in towers]
                for level in range(len(longest))
            ]
            for figure in FIGURES
        },
        fixed_points=[fixed_point(tower) if tower else None for tower in towers],
        honest_levels=[honest_level(tower)["level"] if tower else None for tower in towers],
    )


def by_change(series: Sequence[Series], figure: str, level: int) -> list[Series]:
    """Towers by how much a figure changed, most first; those where that is not known last."""

    def rank(one: Series) -> tuple[bool, float]:
        change = one.change(figure, level)
        return change is None, -abs(change or 0.0)

    return sorted(series, key=rank)


def first_compressed(series: Sequence[Series]) -> int:
    """The first level with a participation ratio somewhere, which is what to look at; else the first above 0."""
    for level in range(1, max(len(one.stages) for one in series)):
        if any(
            value is not None
            for one in series
            if level < len(one.stages)
            for value in one.figures["participation_ratio"][level]
        ):
            return level
    return 1


def as_dict(members: Sequence[Member], series: Sequence[Series]) -> dict[str, Any]:
    """The comparison as plain JSON types."""
    return {
        "tower": members[0].run.manifest["configuration"]["tower"],
        "metric": members[0].run.manifest["configuration"]["metric"],
        "checkpoints": [
            {"name": one.name, "directory": str(one.run.path), "label": one.label, "step": one.step}
            for one in members
        ],
        "towers": [
            {
                "scope": one.scope,
                "name": one.name,
                "width": one.width,
                "weights": one.weights,
                "stages": one.stages,
                **one.figures,
                "fixed_point": one.fixed_points,
                "honest_level": one.honest_levels,
                "change": {
                    figure: [one.change(figure, level) for level in range(len(one.stages))]
                    for figure in FIGURES
                },
            }
            for one in series
        ],
    }
