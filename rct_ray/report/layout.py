"""What all tables in the terminal look like."""

from __future__ import annotations

from rich import box
from rich.table import Table


def titled_table(title: str) -> Table:
    """An empty table: title and caption on the left, a line under the headings."""
    return Table(
        title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
