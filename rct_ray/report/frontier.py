"""A frontier in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rct_ray.report.curves import TO_NEAREST, TRUNCATED, Row, curves, kept_for, model_rows, of_kind
from rct_ray.report.layout import titled_table
from rct_ray.report.progress import printable

# Budgets of bits a weight that are shown: from 1/32 to 16, two to the octave.
_BUDGETS = [2.0 ** (power / 2) for power in range(-10, 9)]


def show_frontier(table: pa.Table, console: Console) -> None:
    """Print the model's front, what plain rounding costs beside it, and the nulls."""
    rows = model_rows(table)
    console.print(_front_table(rows))
    console.print(_rounding_table(rows))
    console.print(_null_table(rows))


def _front_table(rows: Sequence[Row]) -> Table:
    scope = f"{escape(printable(rows[0]['checkpoint']))}, {rows[0]['weights']:,} weights"
    table = titled_table(f"{scope}: what is kept for so many bits a weight")
    for column in (
        "at most",
        "bits/weight",
        "R2",
        "basis",
        "K/d",
        "PCA",
        "rounded to",
        "truncated SVD",
        "shuffled",
    ):
        table.add_column(column, justify="left" if column == "basis" else "right")
    codes, nulls = of_kind(rows, "code"), of_kind(rows, "null")
    low_rank = of_kind(rows, "reference", TRUNCATED)
    shown = None
    for budget in _BUDGETS:
        best = kept_for(codes, budget)
        if best is None or best is shown:
            continue
        shown = best
        table.add_row(
            f"{budget:.3g}",
            f"{best['bits_per_weight']:.3f}",
            _kept(best),
            best["curve"],
            _share(best["share"]),
            "-" if best["threshold"] is None else f"{best['threshold']:g}",
            "-" if best["bits"] is None else f"{best['bits']} bits",
            _kept(kept_for(low_rank, budget)),
            _kept(kept_for(nulls, budget)),
        )
    return table


def _rounding_table(rows: Sequence[Row]) -> Table:
    table = titled_table("The weights themselves rounded to nearest, groups of 128 in a row")
    last = "fewest bits of a code that keeps as much"
    for column in ("", "bits/weight", "R2", last):
        table.add_column(column, justify="left" if column in ("", last) else "right")
    codes = of_kind(rows, "code")
    for row in of_kind(rows, "reference", TO_NEAREST):
        rivals = [code for code in codes if code["r2"] >= row["r2"]]
        best = min(rivals, key=lambda code: code["bits_per_weight"], default=None)
        said = "none swept" if best is None else f"{best['bits_per_weight']:.3f}: {_code(best)}"
        table.add_row(f"int{row['bits']}", f"{row['bits_per_weight']:.3f}", _kept(row), said)
    return table


def _null_table(rows: Sequence[Row]) -> Table:
    table = titled_table("R2 at K/d, not rounded, and with the entries shuffled")
    plain = [row for row in rows if row["share"] and row["threshold"] is None and row["bits"] is None]
    shares = sorted({row["share"] for row in plain if row["share"] < 1})
    table.add_column("basis")
    for share in shares:
        table.add_column(_share(share), justify="right")
    kept = {(row["kind"], row["curve"], row["share"]): row["r2"] for row in plain}
    for curve in curves(rows):
        table.add_row(
            curve,
            *(
                f"{kept['code', curve, share]:.3f} ({kept['null', curve, share]:.3f})"
                if ("code", curve, share) in kept
                else "-"
                for share in shares
            ),
        )
    return table


def _code(row: Row) -> str:
    """A code in words."""
    pca = "" if row["threshold"] is None else f", pca({row['threshold']:g})"
    rounded = "" if row["bits"] is None else f", {row['bits']} bits"
    return f"{row['curve']}, K/d {_share(row['share'])}{pca}{rounded}"


def _share(share: float) -> str:
    whole = 1 / share
    return "1" if share == 1 else f"1/{whole:g}" if whole == round(whole) else f"{share:g}"


def _kept(row: Row | None) -> str:
    """R2 in four places; in six where these would be all nines, and not rounded up to 1."""
    if row is None:
        return "-"
    r2 = row["r2"]
    return f"{r2:.4f}" if r2 < 0.9995 or r2 == 1 else f"{min(r2, 0.999999):.6f}"
