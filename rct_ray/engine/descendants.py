"""End what a local Ray leaves behind: after an interrupt its agents may outlive the raylet by minutes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
# A process is its number and when it began, for numbers are used again.
Process = tuple[int, str]


def descendants() -> list[Process]:
    """Processes that this one started, and those they started; none where there is no /proc."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        known = _stat(int(entry.name)) if entry.name.isdigit() else None
        if known:
            parents[int(entry.name)] = known
    found: list[Process] = []
    family = {os.getpid()}
    while grown := [pid for pid, (parent, _) in parents.items() if parent in family and pid not in family]:
        family.update(grown)
        found += [(pid, parents[pid][1]) for pid in grown]
    return found


def end_survivors(processes: Iterable[Process], patience: float = 5.0) -> None:
    """Wait for processes to end by themselves, and kill those that do not."""
    left = list(processes)
    deadline = time.monotonic() + patience
    while left and time.monotonic() < deadline:
        left = [process for process in left if _alive(process)]
        time.sleep(0.05)
    for process in left:
        if _alive(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process[0], signal.SIGKILL)


def _alive(process: Process) -> bool:
    pid, began = process
    known = _stat(pid)
    return known is not None and known[1] == began


def _stat(pid: int) -> tuple[int, str] | None:
    """Parent and start time; None for a process that is gone, or waits only to be collected."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name, in brackets, may hold anything.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else (int(fields[1]), fields[19])
