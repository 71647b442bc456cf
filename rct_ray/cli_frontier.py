"""The command `frontier`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rct_ray.cli_options import (
    AsJson,
    Checkpoint,
    Columns,
    DriverMemory,
    Exclude,
    Include,
    Seed,
    make_config,
    make_console,
    say,
)


def frontier(
    checkpoint: Checkpoint,
    basis: Annotated[
        list[str] | None, typer.Option(help="A first stage whose K is swept; several times for several.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Parquet file for every point.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Picture: .svg, .png or .pdf.")] = None,
    include: Include = None,
    exclude: Exclude = None,
    columns: Columns = None,
    seed: Seed = None,
    driver_memory: DriverMemory = None,
    workers: Annotated[int | None, typer.Option(help="Threads, a tensor each; changes no figure.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sweep bases, K and rounding: R2 against bits per weight, beside low rank and plain rounding."""
    from rct_ray.config import parse_bytes
    from rct_ray.frontier import BASES
    from rct_ray.frontier import frontier as sweep
    from rct_ray.report.frontier import draw_frontier, show_frontier
    from rct_ray.report.progress import track
    from rct_ray.results.frontier import write_frontier

    config = make_config(
        None,
        include=include,
        exclude=exclude,
        columns=columns,
        seed=seed,
        driver_memory=parse_bytes(driver_memory) if driver_memory else None,
    )
    table = sweep(checkpoint, basis or BASES, config, workers=workers, progress=track, say=say)
    if out is not None:
        write_frontier(table, out)
    if plot is not None:
        draw_frontier(table, plot)
    if as_json:
        print(json.dumps(table.to_pylist()))
    else:
        show_frontier(table, make_console())
