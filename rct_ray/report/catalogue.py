"""What is in a checkpoint, and what a run would take of it."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rct_ray.report.progress import printable


def print_inspection(seen: dict[str, Any], console: Console) -> None:
    """Print the tensors of `api.inspect` as a table, and the totals."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    table.add_column("dtype")
    for column in ("shape", "rows", "width", "MB"):
        table.add_column(column, justify="right")
    table.add_column("selected", overflow="fold")
    for tensor in seen["tensors"]:
        table.add_row(
            Text(printable(tensor["name"])),
            tensor["dtype"],
            "x".join(map(str, tensor["shape"])) or "scalar",
            f"{tensor['rows']:,}" if tensor["rows"] else "-",
            f"{tensor['width']:,}" if tensor["width"] else "-",
            f"{tensor['bytes'] / 1e6:,.2f}",
            Text("yes") if tensor["selected"] else Text(printable(f"no: {tensor['reason']}"), style="dim"),
        )
    console.print(table)
    files = len(seen["files"])
    console.print(
        Text(
            f"{seen['selected']} of {len(seen['tensors'])} tensors selected: {seen['rows']:,} rows, "
            f"{seen['weights']:,} weights, {seen['bytes'] / 1e6:,.1f} MB to read "
            f"in {files} file{'s' if files != 1 else ''}"
        )
    )
