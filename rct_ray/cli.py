"""The command line: thin over the public functions; bad input ends in one line and exit status 2."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from rct_ray.cli_frontier import frontier
from rct_ray.cli_options import (
    AsJson,
    Checkpoint,
    Checkpoints,
    Columns,
    CountTied,
    DriverMemory,
    Exclude,
    Include,
    Metric,
    Null,
    Preset,
    SampleRows,
    Seed,
    SvdBound,
    Tower,
    log,
    log_as_json,
    make_config,
    make_console,
    say,
)
from rct_ray.cli_rebuild import reconstruct, size, verify
from rct_ray.cli_report import compare, report
from rct_ray.cli_submit import AS_RUN, logs, status, stop, submit

if TYPE_CHECKING:
    from rct_ray.results import Run

_INTERRUPTED = 130
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How compressible are the weights of a neural network?",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"rct-ray {version('rct-ray')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    checkpoints: Checkpoints,
    out: Annotated[Path | None, typer.Option(help="Run directory to write (default: ./NAME.rct).")] = None,
    tower: Tower = None,
    preset: Preset = None,
    metric: Metric = None,
    include: Include = None,
    exclude: Exclude = None,
    columns: Columns = None,
    count_tied: CountTied = False,
    sample_rows: SampleRows = None,
    seed: Seed = None,
    null: Null = None,
    svd_bound: SvdBound = None,
    pca: Annotated[
        str | None,
        typer.Option(help="How levels are decomposed: auto, moments, tsqr, gather, randomized."),
    ] = None,
    driver_memory: DriverMemory = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse tensors with NaN or Inf.")] = False,
    engine: Annotated[str, typer.Option(help="auto, inprocess or ray.")] = "auto",
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads or Ray actors; changes no figure.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run in --out.")] = False,
    as_json: AsJson = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Say what happens as lines of JSON, on stderr.")
    ] = False,
) -> None:
    """Measure checkpoints and write the tables of a run."""
    from rct_ray.api import run as run_checkpoints
    from rct_ray.config import parse_bytes
    from rct_ray.report.progress import track

    log_as_json(log_json)
    config = make_config(
        preset,
        tower=tower,
        metric=metric,
        include=include,
        exclude=exclude,
        columns=columns,
        count_tied=count_tied or None,
        sample_rows=sample_rows,
        seed=seed,
        null=null,
        svd_bound=svd_bound,
        pca=pca,
        driver_memory=parse_bytes(driver_memory) if driver_memory else None,
        strict=strict or None,
    )
    directory = out or _default_out(checkpoints)
    with _interruptible(directory):
        finished = run_checkpoints(
            checkpoints,
            directory,
            config,
            engine=engine,
            workers=workers,
            address=address,
            resume=resume,
            progress=None if log_json else track,
            say=say,
            notice=log if log_json else None,
        )
    _print_run(finished, as_json)
    say(f"written to {directory}")
    if finished.failed:
        _list_failed(finished)
        raise typer.Exit(1)


@app.command()
def inspect(
    checkpoint: Checkpoint,
    include: Include = None,
    exclude: Exclude = None,
    columns: Columns = None,
    count_tied: CountTied = False,
    as_json: AsJson = False,
) -> None:
    """List a checkpoint's tensors, and which a run would take; reads headers only."""
    from rct_ray.api import inspect as inspect_checkpoint
    from rct_ray.report.catalogue import print_inspection

    config = make_config(
        None, include=include, exclude=exclude, columns=columns, count_tied=count_tied or None
    )
    seen = inspect_checkpoint(checkpoint, config)
    if as_json:
        print(json.dumps(seen))
    else:
        print_inspection(seen, make_console())


@app.command()
def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory.")],
    timings: Annotated[
        bool, typer.Option("--timings", help="Where the time went, instead of the towers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the towers of a run, or where its time went."""
    from rct_ray.results import open_run

    opened = open_run(directory)
    if timings:
        from rct_ray.report.timings import show_timings, timings_of

        if as_json:
            print(json.dumps(timings_of(opened)))
        else:
            show_timings(opened, make_console())
        return
    _print_run(opened, as_json)
    _list_failed(opened)


app.command()(frontier)
app.command()(report)
app.command()(compare)
app.command()(reconstruct)
app.command()(verify)
app.command()(size)
app.command(**AS_RUN)(submit)
app.command()(status)
app.command()(logs)
app.command()(stop)


@contextmanager
def _interruptible(directory: Path) -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, and say what either left behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        from rct_ray.results import is_run, unfinished

        kept = unfinished(directory)
        if kept:
            say(f"{kept} finished units are kept in {directory}: go on with --resume")
        elif is_run(directory):
            say(f"{directory} holds a whole run")
        else:
            say("nothing was written")
        raise


def _list_failed(finished: Run) -> None:
    """Name the checkpoints that could not be measured, and why."""
    from rct_ray.report.progress import printable

    count, measured = len(finished.failed), len(finished.manifest["checkpoints"])
    if count:
        say(f"{count} of {count + measured} checkpoints could not be measured:")
    for failure in finished.failed:
        path, reason = failure["path"], failure["reason"]
        say(printable(f"  {reason}" if path in reason else f"  {path}: {reason}"))


def _default_out(checkpoints: Sequence[str]) -> Path:
    # A glob and a list have marks that no directory should be named with.
    plain = re.sub(r"[*?@\[\]]", "", Path(checkpoints[0]).absolute().name)
    name = re.sub(r"(\.index\.json|\.safetensors|\.np[yz]|\.pth?|\.bin|\.ckpt|\.txt)+$", "", plain) or "run"
    return Path(f"{name}.rct" if len(checkpoints) == 1 else f"{name}-and-{len(checkpoints) - 1}-more.rct")


def _print_run(finished: Run, as_json: bool) -> None:
    if as_json:
        from rct_ray.report.summary import write_summary

        write_summary(finished, sys.stdout)
        return
    from rct_ray.report.terminal import show as show_run

    show_run(finished, make_console())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 the input is wrong, 130 interrupted."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    log_as_json(False)
    try:
        # What a command raises to exit, Typer returns; an interrupt too, as 130. Commands return nothing.
        status = app(args=list(arguments) if arguments is not None else None, standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except Exception as error:
        return _explain(error)
    if status == _INTERRUPTED:
        say("interrupted")
    return int(status)


def _explain(error: Exception) -> int:
    """One line for the user's mistakes and status 2; a traceback for ours and status 1."""
    from rct_ray.engine.errors import EngineError
    from rct_ray.report.progress import printable
    from rct_ray.results.errors import system_failed

    status = 2
    # Typer may use a click of its own, so errors of usage are known by their base, not by click's name.
    if isinstance(error, _UsageError):
        said = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            say(said)
            return status
        said = f"{said.rstrip('.')}; see rct-ray --help"
    elif isinstance(error, (ValueError, EngineError)) and type(error).__module__.startswith("rct_ray."):
        said = str(error)
        if isinstance(error, EngineError) or system_failed(error):
            status = 1
    else:
        raise error
    say(f"rct-ray: {printable(said)}", "run failed")
    return status
