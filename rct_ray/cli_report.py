"""The commands `report` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rct_ray.cli_options import say


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page; replaced if there.")],
) -> None:
    """Write a run as one HTML page that needs no network."""
    from rct_ray.report.html_page import write_report

    write_report(directory, out)
    say(f"written to {out}")
