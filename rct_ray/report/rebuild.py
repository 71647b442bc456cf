"""Rebuilt weights in the terminal: what was compared, and what codes take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rct_ray.report.progress import printable


def show_verification(level: int, tensors: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print R2 of each tensor beside the tables', and how many differ."""
    table = _table("tensor", "dtype", "R2", "in the tables", "difference", "allowed", "")
    for tensor in tensors:
        verdict = Text("ok") if tensor["agrees"] else Text("DIFFERS", style="bold red")
        figures = ["-", "copied", "-", "-"]
        if tensor["r2"] is not None:
            difference = abs(tensor["r2"] - tensor["expected"])
            figures = [
                f"{tensor['r2']:.7f}",
                f"{tensor['expected']:.7f}",
                f"{difference:.1e}",
                f"{tensor['allowed']:.1e}",
            ]
        table.add_row(Text(printable(tensor["name"])), tensor["dtype"], *figures, verdict)
    console.print(table)
    wrong = sum(not tensor["agrees"] for tensor in tensors)
    said = f"{wrong} of {len(tensors)} tensors differ" if wrong else f"all {len(tensors)} tensors agree"
    console.print(f"level {level}: {said}")


def show_sizes(sizes: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what each level takes, beside the original."""
    table = _table("level", "stage", "numbers", "side", "unchanged", "headers", "total", "ratio", "R2")
    table.add_row("", "as stored", *[""] * 4, f"{sizes[0]['original']:,}", "1.00x", "1.0000")
    for one in sizes:
        table.add_row(
            str(one["level"]),
            "weights at 16 bits" if one["level"] == 0 else one["stage"],
            *(f"{one[part]:,}" for part in ("numbers", "side", "unchanged", "header", "total")),
            f"{one['original'] / one['total']:.2f}x",
            f"{one['r2']:.4f}",
        )
    console.print(table)
    console.print(
        "Bytes, computed from the tables: codes themselves are not stored. R2 at level 0 leaves out rounding to "
        "16 bits, and R2 says nothing of what the model computes.",
        soft_wrap=True,
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        left = column in ("tensor", "dtype", "stage", "")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    return table
