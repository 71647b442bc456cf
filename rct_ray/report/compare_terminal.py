"""A comparison of checkpoints in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rct_ray.report.compare import Member, Series, by_change
from rct_ray.report.layout import titled_table
from rct_ray.report.progress import printable
from rct_ray.report.sparkline import sparkline

_TENSORS_SHOWN = 40
# Four courses fit beside a name.
_COURSE = 6
_HEADINGS = {"r2": "R2", "lift": "lift", "bits_per_weight": "bits/weight", "participation_ratio": "PR"}
_DIGITS = {"r2": 4, "lift": 4, "bits_per_weight": 3, "participation_ratio": 2}


def show_comparison(
    members: Sequence[Member],
    series: Sequence[Series],
    angles: Sequence[Mapping[str, Any]],
    level: int,
    figure: str,
    console: Console,
) -> None:
    """Print the pooled towers at every level, then the tensors at one, those that changed most first.

    Parameters
    ----------
    members, series
        Of `report.compare`.
    angles
        Of `report.angles`, between the last two members.
    level : int
        Of the tensors.
    figure : str
        What tensors are sorted by the change of.
    console : Console
    """
    settings = members[0].run.manifest["configuration"]
    console.print(Text(f"{settings['tower']} · {settings['metric']}", style="bold"))
    names = ", ".join(printable(_named(member)) for member in members)
    console.print(Text(f"{len(members)} checkpoints: {names}"))
    turned = {(row["scope"], row["name"], row["width"], row["level"]): row for row in angles}
    pooled = [one for one in series if one.scope != "tensor"]
    # One width is the model: saying it twice helps nobody.
    for one in pooled[:1] if len(pooled) == 2 else pooled:
        console.print(_pooled_table(one, turned))
    tensors = by_change([one for one in series if one.scope == "tensor"], figure, level)
    if tensors:
        console.print(_tensor_table(tensors, turned, level, figure))
    said = "Of each figure: its course, the value at the last checkpoint, and the change from the first."
    if turned:
        said += " Turned: the largest angle between what the level keeps at the last two."
    console.print(Text(said, style="dim"))


def towers_shown(series: Sequence[Series], level: int, figure: str) -> set[tuple[str, str, int]]:
    """Scope, name and width of the towers that `show_comparison` prints."""
    tensors = by_change([one for one in series if one.scope == "tensor"], figure, level)[:_TENSORS_SHOWN]
    pooled = [one for one in series if one.scope != "tensor"]
    return {(one.scope, one.name, one.width) for one in [*tensors, *pooled]}


def _named(member: Member) -> str:
    return member.name if member.step is None else f"{member.name} (step {member.step:,})"


def _pooled_table(one: Series, turned: Mapping[Any, Mapping[str, Any]]) -> Table:
    known = [weights for weights in one.weights if weights is not None]
    title = f"width {one.name}" if one.scope == "width" else "model"
    sizes = f"{min(known):,}" if min(known) == max(known) else f"{min(known):,} to {max(known):,}"
    table = titled_table(f"{title}: {sizes} weights")
    table.add_column("level", justify="right")
    table.add_column("stage")
    _figure_columns(table, turned)
    for level in range(1, len(one.stages)):
        table.add_row(str(level), one.stages[level], *_cells(one, level, turned))
    table.caption = f"fixed point {_levels(one.fixed_points)}   honest level {_levels(one.honest_levels)}"
    return table


def _tensor_table(
    tensors: Sequence[Series], turned: Mapping[Any, Mapping[str, Any]], level: int, figure: str
) -> Table:
    table = titled_table(f"tensors at level {level}, by the change of {_HEADINGS[figure]}")
    table.add_column("tensor", overflow="fold")
    _figure_columns(table, turned)
    table.add_column("fixed", justify="right")
    table.add_column("honest", justify="right")
    for one in tensors[:_TENSORS_SHOWN]:
        table.add_row(
            Text(printable(one.name)),
            *_cells(one, level, turned),
            _levels(one.fixed_points, ends=True),
            _levels(one.honest_levels, ends=True),
        )
    if len(tensors) > _TENSORS_SHOWN:
        table.caption = f"{len(tensors) - _TENSORS_SHOWN:,} more with --json"
    return table


def _figure_columns(table: Table, turned: Mapping[Any, Any]) -> None:
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    if turned:
        table.add_column("turned", justify="right")


def _cells(one: Series, level: int, turned: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    cells = [_course(one, figure, level) for figure in _HEADINGS]
    if turned:
        row = turned.get((one.scope, one.name, one.width, level))
        cells.append("-" if row is None else f"{row['largest']:.1f}°")
    return cells


def _course(one: Series, figure: str, level: int) -> str:
    """A figure over the checkpoints: drawn, its last value, and the change from the first."""
    values = one.figures[figure][level] if level < len(one.stages) else []
    if all(value is None for value in values):
        return "-"
    digits, change = _DIGITS[figure], one.change(figure, level)
    last = "-" if values[-1] is None else f"{values[-1]:.{digits}f}"
    by = "" if change is None else f" {change:+.{digits}f}"
    return f"{sparkline(values, _COURSE)} {last}{by}"


def _levels(levels: Sequence[int | None], ends: bool = False) -> str:
    """Levels over the checkpoints, or the first and the last of them; one if they are all the same."""
    said = ["-" if level is None else str(level) for level in levels]
    if len(set(said)) == 1:
        return said[0]
    return " → ".join((said[0], said[-1]) if ends else said)
