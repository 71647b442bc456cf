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
    CountTied,
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
    share: Annotated[
        list[str] | None,
        typer.Option(help="K over columns, such as 1/32; several times for several (1/64 to 1)."),
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option(help="Of a PCA of the code, beside none (0.99 and 0.9).")
    ] = None,
    bits: Annotated[
        list[int] | None, typer.Option(help="To round the code to, beside 16-bit floats (8, 4, 3 and 2).")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Parquet file for every point.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Picture: .svg, .png or .pdf.")] = None,
    include: Include = None,
    exclude: Exclude = None,
    columns: Columns = None,
    count_tied: CountTied = False,
    seed: Seed = None,
    driver_memory: DriverMemory = None,
    workers: Annotated[int | None, typer.Option(help="Threads, a tensor each; changes no figure.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sweep bases, K and rounding: R2 against bits per weight, beside low rank and plain rounding."""
    from rct_ray.config import parse_bytes
    from rct_ray.fronts import BASES
    from rct_ray.fronts import frontier as sweep
    from rct_ray.report.frontier import show_frontier
    from rct_ray.report.picture import check_picture, draw_frontier
    from rct_ray.report.progress import printable, track
    from rct_ray.results.files import check_writable
    from rct_ray.results.frontier import write_frontier

    config = make_config(
        None,
        include=include,
        exclude=exclude,
        columns=columns,
        count_tied=count_tied or None,
        seed=seed,
        driver_memory=parse_bytes(driver_memory) if driver_memory else None,
    )
    if out is not None:
        check_writable(out)
    if plot is not None:
        check_picture(plot)
    table = sweep(
        checkpoint,
        basis or BASES,
        config,
        shares=[_share(text) for text in share] if share else None,
        thresholds=threshold,
        bits=bits,
        workers=workers,
        progress=track,
        say=lambda line: say(printable(line)),
    )
    if out is not None:
        write_frontier(table, out)
    if plot is not None:
        draw_frontier(table, plot)
    if as_json:
        print(json.dumps(table.to_pylist()))
    else:
        show_frontier(table, make_console())


def _share(text: str) -> float:
    from fractions import Fraction

    from rct_ray.config import ConfigError

    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"'{text}' is no share of the columns; write such as 1/32 or 0.25") from None
