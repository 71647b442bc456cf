"""The commands `reconstruct`, `verify` and `size`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from rct_ray.cli_options import AsJson, make_console, say

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Run directory.")]
Label = Annotated[
    str | None, typer.Option("--checkpoint", metavar="LABEL", help="Which one, in a run over several.")
]


def reconstruct(
    directory: Directory,
    level: Annotated[int, typer.Option(help="Level of the towers; 0 copies the weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="NAME.safetensors to write.")],
    original: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="Where the measured checkpoint is now.")
    ] = None,
    checkpoint: Label = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of rebuilt tensors: float64, float32, float16 or bfloat16 (as in the original)."),
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option(metavar="BYTES", help="More is spread over several files, with an index.")
    ] = "5GB",
) -> None:
    """Write the weights that a level decodes to, rebuilt from the original by a run's decoders."""
    from rct_ray.config import parse_bytes
    from rct_ray.rebuild import reconstruct as rebuild
    from rct_ray.report.progress import printable

    # As Ctrl-C, so that nothing half-written stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    written = rebuild(
        directory,
        out,
        level,
        original=original,
        checkpoint=checkpoint,
        dtype=dtype,
        max_shard_size=parse_bytes(max_shard_size),
    )
    say(printable(f"level {level} written to {written[-1]}"))


def verify(
    directory: Directory,
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The checkpoint that was measured.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="What reconstruct wrote.")],
    as_json: AsJson = False,
) -> None:
    """Recompute R2 of every rebuilt tensor, and compare it with the tables; exit status 1 if any differs."""
    from rct_ray.rebuild import verify as compare
    from rct_ray.rebuild.checking import as_rows
    from rct_ray.report.rebuild import show_verification

    checked = compare(directory, original, out)
    if as_json:
        print(json.dumps({"level": checked.level, "agrees": checked.agrees, "tensors": as_rows(checked)}))
    else:
        show_verification(checked.level, as_rows(checked), make_console())
    if not checked.agrees:
        raise typer.Exit(1)


def size(directory: Directory, checkpoint: Label = None, as_json: AsJson = False) -> None:
    """Say what each level takes as a compressed checkpoint, in bytes, beside the original."""
    from dataclasses import asdict

    from rct_ray.rebuild import code_sizes
    from rct_ray.report.rebuild import show_sizes

    sizes = [{**asdict(one), "total": one.total} for one in code_sizes(directory, checkpoint)]
    if as_json:
        print(json.dumps(sizes))
    else:
        show_sizes(sizes, make_console())
