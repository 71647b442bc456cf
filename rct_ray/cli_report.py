"""The commands `report` and `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rct_ray.cli_options import AsJson, make_console, say


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page; replaced if there.")],
) -> None:
    """Write a run as one HTML page that needs no network."""
    from rct_ray.report.html_page import write_report

    write_report(directory, out)
    say(f"written to {out}")


def compare(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Run directories; one of several checkpoints will do."),
    ],
    level: Annotated[
        int | None, typer.Option(help="Of the tensors (the first with a participation ratio).")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Sort by the change of r2 (default), lift, bits_per_weight or participation_ratio."
        ),
    ] = "r2",
    as_json: AsJson = False,
) -> None:
    """Put checkpoints side by side: every figure from the first to the last, what changed most first."""
    from rct_ray.report.angles import subspace_angles
    from rct_ray.report.compare import FIGURES, as_dict, by_change, first_compressed, members_of, series_of
    from rct_ray.report.compare_terminal import show_comparison, towers_shown
    from rct_ray.results import ResultsError, open_run

    if by not in FIGURES:
        raise ResultsError(f"no figure {by!r} to sort by; there is {', '.join(FIGURES)}")
    members = members_of([open_run(directory) for directory in directories])
    series = series_of(members)
    top = max((len(one.stages) for one in series), default=1) - 1
    shown = first_compressed(series) if level is None else level
    if not 0 <= shown <= top:
        raise ResultsError(f"no level {level} in these towers; the top one is {top}")
    wanted = None if as_json else towers_shown(series, shown, by)
    angles = subspace_angles(members[-2], members[-1], wanted)
    if as_json:
        ordered = by_change(series, by, shown)
        print(json.dumps({**as_dict(members, ordered), "angles": angles}))
    else:
        show_comparison(members, series, angles, shown, by, make_console())
