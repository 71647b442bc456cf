"""A run in the terminal: a table for each tower, one for the tensors, and the conclusions in words."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rct_ray.report.layout import titled_table
from rct_ray.report.progress import printable
from rct_ray.report.rows import rows_of
from rct_ray.report.sparkline import sparkline
from rct_ray.report.words import conclusions, fixed_point, honest_level
from rct_ray.results import Run

Row: TypeAlias = Mapping[str, Any]
Tower: TypeAlias = list[Row]

# More tensors than this fill no screen; the rest is in levels.parquet.
_TENSORS_SHOWN = 40

_SEED_NAMES = ("Raw weights", "L1 amplitudes", "PCA of amplitudes", "PCA of PCA scores")


def show(run: Run, console: Console) -> None:
    """Print every checkpoint of a run; of several, one line each."""
    if len(run.manifest["checkpoints"]) > 1:
        console.print(_checkpoint_table(run))
        return
    for listed in run.manifest["checkpoints"]:
        label = listed["label"]
        _heading(run, label, console)
        towers = _towers(run, label)
        tensors, count, pooled = _shown(towers)
        if len(pooled) == 2:
            # One width is the model: saying it twice helps nobody.
            pooled = pooled[:1]
        seed_like = run.manifest["configuration"]["preset"] == "paper67"
        for tower in pooled:
            console.print(_seed_table(tower) if seed_like else _tower_table(tower))
        if not seed_like:
            console.print(_tensor_table(tensors, count))
        for sentence in conclusions(pooled[-1]):
            console.print(Text("• " + sentence))
        console.print()


def _shown(towers: Iterable[Tower]) -> tuple[list[Tower], int, list[Tower]]:
    """The tensors' towers of the largest lift, in order; how many there are; and the pooled ones."""
    best: list[tuple[float, int, Tower]] = []
    pooled: list[Tower] = []
    count = 0
    for tower in towers:
        if tower[0]["scope"] != "tensor":
            pooled.append(tower)
            continue
        heapq.heappush(best, (tower[1]["lift"] or 0.0, -count, tower))
        if len(best) > _TENSORS_SHOWN:
            heapq.heappop(best)
        count += 1
    order = (lambda entry: -entry[1]) if count <= _TENSORS_SHOWN else (lambda entry: (-entry[0], -entry[1]))
    return [tower for _, _, tower in sorted(best, key=order)], count, pooled


def _checkpoint_table(run: Run) -> Table:
    """The model's tower of each checkpoint, a line each."""
    table = titled_table(
        f"{run.manifest['configuration']['tower']} · {run.manifest['configuration']['metric']}"
    )
    table.add_column("checkpoint", overflow="fold")
    table.add_column("step", justify="right")
    table.add_column("weights", justify="right")
    first = True
    courses: list[list[float]] = []
    for listed in run.manifest["checkpoints"]:
        tower = run.levels_of(scope="model", checkpoint=listed["label"]).to_pylist()
        if first:
            for level in tower[1:]:
                table.add_column(f"R2 L{level['level']} (null)", justify="right")
                courses.append([])
            table.add_column("fixed", justify="right")
            table.add_column("honest", justify="right")
            first = False
        fixed = fixed_point(tower)
        for course, level in zip(courses, tower[1:], strict=True):
            course.append(level["r2"])
        table.add_row(
            Text(printable(listed["label"])),
            "-" if listed["step"] is None else f"{listed['step']:,}",
            f"{tower[0]['weights']:,}",
            *(f"{_number(level['r2'], 4)} ({_number(level['null_r2'], 4)})" for level in tower[1:]),
            "-" if fixed is None else str(fixed),
            str(honest_level(tower)["level"]),
        )
    table.caption = "R2: " + "   ".join(
        f"L{number} {sparkline(course)}" for number, course in enumerate(courses, start=1)
    )
    return table


def _towers(run: Run, label: str) -> Iterator[Tower]:
    rows = rows_of(run.levels_of(checkpoint=label))
    for _, levels in groupby(rows, key=lambda row: (row["scope"], row["name"], row["width"])):
        yield list(levels)


def _heading(run: Run, label: str, console: Console) -> None:
    settings = run.manifest["configuration"]
    statuses: Counter[str] = Counter()
    faulty: list[Row] = []
    for row in rows_of(run.tensors.select(["checkpoint", "name", "status", "skip_reason"])):
        if row["checkpoint"] == label:
            statuses[row["status"]] += 1
            faulty += [row] if row["status"] == "nonfinite" else []
    console.print(Text(printable(label), style="bold"), Text(f"{settings['tower']} · {settings['metric']}"))
    said = f"{statuses['used']} of {statuses.total()} tensors measured"
    if settings["sample_rows"]:
        said += f", {settings['sample_rows']} rows of each width drawn (seed {settings['seed']})"
    console.print(Text(said, style="dim"))
    for tensor in faulty:
        console.print(Text(f"left out: {printable(tensor['name'])} {tensor['skip_reason']}", style="yellow"))


def _tower_table(levels: Tower) -> Table:
    first = levels[0]
    name = f"width {first['name']}" if first["scope"] == "width" else "model"
    table = titled_table(f"{name}: {first['rows']:,} rows, {first['weights']:,} weights")
    for column in ("level", "stage", "params", "ratio", "total", "R2", "null", "lift", "PR", "null PR"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    table.add_column("low rank", justify="right")
    table.add_column("bits/weight", justify="right")
    best, fixed = honest_level(levels)["level"], fixed_point(levels)
    for row in levels:
        number = row["level"]
        marks = ("*" if number == fixed else "") + ("+" if number == best else "")
        table.add_row(
            f"{marks}{number}",
            row["stage"],
            f"{row['params']:,}",
            f"{row['level_ratio']:.2f}x",
            f"{row['cumulative_ratio']:,.1f}x",
            *(_number(row[column], 4) for column in ("r2", "null_r2", "lift")),
            *(_number(row[column], 2) for column in ("participation_ratio", "null_participation_ratio")),
            _number(row["svd_bound_r2"] if number else None, 4),
            _number(row["bits_per_weight"], 3),
        )
    table.caption = (
        "* fixed point   + honest level (fewest bits at R2 0.99)   "
        "low rank: R2 of the best factors of as many params"
    )
    return table


def _seed_table(levels: Tower) -> Table:
    """The seed's own table, beside the nulls it lacks."""
    table = titled_table(
        f"width {levels[0]['name']}: {levels[0]['rows']:,} rows, {levels[0]['weights']:,} weights"
    )
    for column in (
        "Level",
        "Name",
        "Params",
        "Level Comp",
        "Cumulative",
        "R2 -> L0",
        "PR",
        "null R2",
        "null PR",
    ):
        table.add_column(column, justify="left" if column == "Name" else "right")
    for row in levels:
        number = row["level"]
        name = _SEED_NAMES[number] if number < len(_SEED_NAMES) else f"Recursion level {number}"
        stuck = " (incompressible)" if row["incompressible"] else ""
        table.add_row(
            f"L{number}",
            name + stuck,
            f"{row['params']:,}",
            f"{row['level_ratio']:.2f}x",
            f"{row['cumulative_ratio']:.1f}x",
            _number(row["r2_centered"], 4),
            _number(row["participation_ratio"], 2),
            _number(row["null_r2"], 4),
            _number(row["null_participation_ratio"], 2),
        )
    table.caption = "R2 -> L0 about the grand mean, as the seed counts it; null R2 about zero"
    return table


def _tensor_table(shown: Sequence[Tower], count: int) -> Table:
    table = titled_table(
        "tensors, at level 1" if len(shown) == count else "tensors of the largest lift, at level 1"
    )
    table.add_column("tensor", overflow="fold")
    for column in ("rows", "width", "K", "R2", "null", "lift", "low rank", "fixed", "honest"):
        table.add_column(column, justify="right")
    for tower in shown:
        row, fixed = tower[1], fixed_point(tower)
        table.add_row(
            Text(printable(row["name"])),
            f"{row['rows']:,}",
            f"{row['width']:,}",
            f"{row['n_components']:,}",
            *(_number(row[column], 4) for column in ("r2", "null_r2", "lift", "svd_bound_r2")),
            "-" if fixed is None else str(fixed),
            str(honest_level(tower)["level"]),
        )
    if len(shown) < count:
        table.caption = f"{count - len(shown):,} more in levels.parquet"
    return table


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.1e}"
