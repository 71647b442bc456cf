"""A frontier in the terminal and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from rct_ray.results import ResultsError
from rct_ray.results.files import replacing

Row: TypeAlias = Mapping[str, Any]
PICTURES = ("svg", "png", "pdf")


def show_frontier(table: pa.Table, console: Console) -> None:
    """Print the model's front, what plain rounding costs beside it, and the nulls."""
    rows = _model(table)
    console.print(_front_table(rows))
    console.print(_rounding_table(rows))
    console.print(_null_table(rows))


def draw_frontier(table: pa.Table, path: Path) -> None:
    """Draw the model's curves: the best of each basis, the references, the nulls.

    Parameters
    ----------
    table : pyarrow.Table
    path : Path
        Its suffix says what to draw: svg, png or pdf.

    Raises
    ------
    ResultsError
        If the suffix is another, matplotlib is not installed, or the file can't be written.
    """
    kind = path.suffix.lstrip(".").lower()
    if kind not in PICTURES:
        raise ResultsError(f"{path}: a picture ends in {', '.join('.' + one for one in PICTURES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ResultsError("a picture needs matplotlib: pip install 'rct-ray[plot]'") from None
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="bits per weight", ylabel="R2 (share of the energy kept)")
    rows = _model(table)
    for colour, curve in enumerate(dict.fromkeys(row["curve"] for row in rows if row["kind"] == "code")):
        best = _envelope(row for row in rows if row["kind"] == "code" and row["curve"] == curve)
        axes.plot(*_xy(best), color=f"C{colour}", marker=".", label=curve)
        null = [row for row in rows if row["kind"] == "null" and row["curve"] == curve]
        axes.plot(*_xy(null), color=f"C{colour}", linestyle=":", linewidth=1)
    references = [row for row in rows if row["kind"] == "reference"]
    low_rank = [row for row in references if row["curve"].startswith("truncated SVD")]
    axes.plot(*_xy(low_rank), color="black", linestyle="--", label="truncated SVD, 16 bits a number")
    for row in references:
        if row not in low_rank:
            axes.plot(row["bits_per_weight"], row["r2"], "k^")
            axes.annotate(row["curve"].removeprefix("round to nearest "), (row["bits_per_weight"], row["r2"]),
                          textcoords="offset points", xytext=(4, -12))  # fmt: skip
    axes.set_title(f"{rows[0]['checkpoint']}: {rows[0]['weights']:,} weights (dotted: entries shuffled)")
    axes.set_xticks(ticks := [2.0**power for power in range(-6, 5)], [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        with replacing(path) as file:
            figure.savefig(file, format=kind)
    except OSError as error:
        raise ResultsError(f"{path}: can't be written ({error.strerror or error})") from error


def _model(table: pa.Table) -> list[Row]:
    return [row for row in table.to_pylist() if row["scope"] == "model"]


def _envelope(rows: Iterable[Row]) -> list[Row]:
    """Rows that keep more than any that takes fewer bits."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["bits_per_weight"], -row["r2"])):
        if not best or row["r2"] > best[-1]["r2"]:
            best.append(row)
    return best


def _xy(rows: Iterable[Row]) -> tuple[list[float], list[float]]:
    shown = sorted(
        (row for row in rows if row["bits_per_weight"] > 0), key=lambda row: row["bits_per_weight"]
    )
    return [row["bits_per_weight"] for row in shown], [row["r2"] for row in shown]


def _front_table(rows: Sequence[Row]) -> Table:
    table = _table(f"Front of {rows[0]['checkpoint']}: no code keeps more for as few bits")
    for column in ("bits/weight", "R2", "basis", "K/d", "PCA", "rounded to", "truncated SVD keeps"):
        table.add_column(column, justify="left" if column == "basis" else "right")
    for row in _envelope(row for row in rows if row["front"]):
        table.add_row(
            f"{row['bits_per_weight']:.3f}",
            f"{row['r2']:.4f}",
            row["curve"],
            f"1/{1 / row['share']:g}",
            "-" if row["threshold"] is None else f"{row['threshold']:g}",
            "-" if row["bits"] is None else f"{row['bits']} bits",
            f"{_low_rank_at(rows, row['bits_per_weight']):.4f}",
        )
    return table


def _low_rank_at(rows: Iterable[Row], bits: float) -> float:
    """R2 of the largest truncated SVD for no more bits."""
    kept = [
        row["r2"] for row in rows
        if row["curve"].startswith("truncated SVD") and row["bits_per_weight"] <= bits * (1 + 1e-9)
    ]  # fmt: skip
    return max(kept, default=0.0)


def _rounding_table(rows: Sequence[Row]) -> Table:
    table = _table("The weights themselves rounded to nearest, groups of 128")
    for column in ("", "bits/weight", "R2", "cheapest code that keeps as much"):
        table.add_column(
            column, justify="left" if column in ("", "cheapest code that keeps as much") else "right"
        )
    codes = [row for row in rows if row["kind"] == "code"]
    for row in rows:
        if row["curve"].startswith("round to nearest"):
            rivals = [code for code in codes if code["r2"] >= row["r2"]]
            best = min(rivals, key=lambda code: code["bits_per_weight"], default=None)
            said = "none swept" if best is None else f"{best['bits_per_weight']:.3f} bits: {best['curve']}"
            name = row["curve"].removeprefix("round to nearest ")
            table.add_row(name, f"{row['bits_per_weight']:.3f}", f"{row['r2']:.4f}", said)
    return table


def _null_table(rows: Sequence[Row]) -> Table:
    nulls = [row for row in rows if row["kind"] == "null"]
    shares = sorted({row["share"] for row in nulls})
    table = _table("R2 at K/d, and with the entries shuffled")
    table.add_column("basis")
    for share in shares:
        table.add_column(f"1/{1 / share:g}", justify="right")
    plain = {
        (row["curve"], row["share"]): row["r2"]
        for row in rows
        if row["kind"] == "code" and row["threshold"] is None and row["bits"] is None
    }
    for curve in dict.fromkeys(row["curve"] for row in nulls):
        null = {row["share"]: row["r2"] for row in nulls if row["curve"] == curve}
        table.add_row(curve, *(f"{plain[curve, share]:.3f} ({null[share]:.3f})" for share in shares))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
