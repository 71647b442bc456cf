"""What commands have in common: their options, the configuration these make, and where they print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from rct_ray.config import RunConfig

Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CHECKPOINT...",
        help="File, directory, index, 'glob' or list of paths (@FILE, FILE.txt); several make one run.",
    ),
]
Checkpoint = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="File, directory or index.")]
Tower = Annotated[
    str | None, typer.Option(help="Stages, such as 'gaussian(K=16) > pca(0.95)'; also dct, haar, svd.")
]
Metric = Annotated[str | None, typer.Option(help="isometric (default) or amplitude.")]
Include = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Only tensors whose name meets a glob.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="No tensors whose name meets a glob.")
]
Columns = Annotated[int | None, typer.Option(help="Only matrices of this many columns.")]
CountTied = Annotated[
    bool, typer.Option("--count-tied", help="Count tensors again that share another's storage (.pt).")
]
SampleRows = Annotated[int | None, typer.Option(help="Draw this many rows of each width.")]
Seed = Annotated[int | None, typer.Option(help="Of the drawn rows and of the nulls' noise (7).")]
DriverMemory = Annotated[
    str | None, typer.Option(metavar="BYTES", help="What one level may take on the driver (1GiB).")
]
Preset = Annotated[str | None, typer.Option(help="paper67: the seed's experiment.")]
Null = Annotated[
    str | None, typer.Option(help="noise (default), or shuffle: the weights' own entries shuffled.")
]
SvdBound = Annotated[str | None, typer.Option(help="auto (default: where it is cheap), always or never.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


_log_is_json = False


def log_as_json(wanted: bool) -> None:
    """From now on, say everything as lines of JSON, or in plain words."""
    global _log_is_json
    _log_is_json = wanted


def say(line: str, event: str = "message") -> None:
    """Tell the user a line, on stderr."""
    if _log_is_json:
        log(event, {"text": line})
    else:
        print(line, file=sys.stderr, flush=True)


def log(event: str, values: Mapping[str, Any]) -> None:
    """Write an event as a line of JSON, on stderr."""
    from rct_ray.report.log import log_line

    print(log_line(event, values), file=sys.stderr, flush=True)


def make_config(preset: str | None, **options: Any) -> RunConfig:
    """A configuration from the options that were given; those left out (None) are as usual."""
    from rct_ray.config import RunConfig, from_preset

    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None
    }
    return from_preset(preset, **given) if preset else RunConfig(**given)


def make_console() -> Console:
    """The terminal, or a pipe, that tables are printed on."""
    from rich.console import Console

    # A pipe has no width of its own; tables wrapped at 80 columns are hard to read and harder to grep.
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)
