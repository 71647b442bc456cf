"""How far a run is: a live bar on a terminal, a plain line now and then elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

# Elsewhere than on a terminal, a line this often: a job's log stays readable.
_SECONDS_BETWEEN_LINES = 5.0


class _Shards(Protocol):
    @property
    def nbytes(self) -> int: ...


class _Result(Protocol):
    @property
    def nbytes(self) -> int: ...


R = TypeVar("R", bound=_Result)


def track(label: str, plan: _Shards, results: Iterable[R]) -> Iterator[R]:
    """Pass results on as they come, showing bytes done, bytes a second and the time left."""
    return (_live if sys.stderr.isatty() else _lines)(label, plan.nbytes, results)


def _live(label: str, total: int, results: Iterable[R]) -> Iterator[R]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(printable(label)), total=total)
        for result in results:
            bar.advance(task, result.nbytes)
            yield result


def _lines(label: str, total: int, results: Iterable[R]) -> Iterator[R]:
    begun = last = time.monotonic()
    done = 0
    for result in results:
        yield result
        done += result.nbytes
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES and done < total:
            rate = done / (now - begun)
            left = (total - done) / rate
            print(
                f"{printable(label)}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, "
                f"{rate / 1e6:,.0f} MB/s, {left:,.0f} s left",
                file=sys.stderr,
                flush=True,
            )
            last = now


def printable(text: str) -> str:
    """Text with control characters shown escaped: a tensor's name must not drive the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
