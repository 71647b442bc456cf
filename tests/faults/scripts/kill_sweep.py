"""Kill a run at every single change it makes to its run directory, and resume each.

Arguments: checkpoint, undisturbed run, folder for the runs, file for the outcome. Every run is a fork of this
process, with a hook that ends it by SIGKILL at the n-th change.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import pyarrow.parquet  # noqa: F401  (imported once, before the forks)
import pytest

import rct_ray
import rct_ray.tabulate
from rct_ray.results import ResultsError, open_run

TABLES = ("levels.parquet", "tensors.parquet", "decoders.arrow")
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def main():
    """Sweep, until a run comes through with fewer changes than it was to be killed at."""
    checkpoint, undisturbed, folder, outcome = map(Path, sys.argv[1:])
    seen = {"kills": 0, "resumed": 0, "whole": 0}
    while True:
        out = folder / f"run{seen['kills']}"
        if not _in_fork(_run_until, checkpoint, out, seen["kills"]):
            break
        seen["kills"] += 1
        _check(checkpoint, undisturbed, out, seen)
    assert _equal(out, undisturbed)
    outcome.write_text(json.dumps(seen))


def _check(checkpoint, undisturbed, out, seen):
    try:
        open_run(out, verify=True)
    except ResultsError:
        kept = len(list(out.glob("units/*/*.unit")))
        seen["resumed"] += bool(kept)
        assert not _in_fork(_resume, checkpoint, out, kept)
        assert not {path.name for path in out.iterdir()} & {"units", "unfinished.json"}
    else:
        seen["whole"] += 1
    assert _equal(out, undisturbed), out


def _resume(checkpoint, out, kept):
    lines = []
    if kept:
        with pytest.raises(ResultsError, match="--resume"):
            rct_ray.run(checkpoint, out, workers=1)
    rct_ray.run(checkpoint, out, workers=1, resume=True, say=lines.append)
    assert len(lines) == bool(kept)
    assert not lines or f": {kept} of " in lines[0], lines


def _run_until(checkpoint, out, count):
    left = count

    def hook(event, arguments):
        nonlocal left
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if (event in CHANGES or writing) and str(arguments[0]).startswith(str(out)):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    rct_ray.run(checkpoint, out, workers=1)


def _in_fork(work, *arguments):
    """Do some work in a fork of this process; whether it was killed."""
    child = os.fork()
    if not child:
        try:
            work(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def _equal(out, undisturbed):
    return all((out / t).read_bytes() == (undisturbed / t).read_bytes() for t in TABLES)


main()
