"""Which checkpoints are meant: files, directories, globs and lists of these, each checkpoint once."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rct_ray.checkpoint.errors import CheckpointError
from rct_ray.checkpoint.files import opened, unreadable
from rct_ray.checkpoint.formats import is_index, weights_among
from rct_ray.checkpoint.steps import step_in_name

_LIST_SUFFIX = ".txt"
_LIST_MARK = "@"
_LONGEST_LIST = 64 << 20


def find_checkpoints(given: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Paths of the checkpoints that some arguments mean.

    An argument is one of

    - a file or an index: one checkpoint;
    - a directory: several checkpoints if all its files are named after steps, no two after the same one, or if
      it holds no files of weights itself but directories of such, or directories named after steps; otherwise it
      is one checkpoint, as `open_checkpoint` sees it;
    - a glob (``**`` for any depth): what it meets, each as if it had been given. A path that exists is no glob;
    - a list, ``@FILE`` or ``FILE.txt``: a line for each of the above, empty lines and those that start with ``#``
      left out. Relative paths start where the command runs, not where the list lies.

    A checkpoint that is meant twice, also by a link or by its index, is there once. What does not exist is passed
    on, for whoever opens it to say so.

    Parameters
    ----------
    given : iterable of paths

    Returns
    -------
    list of str
        In the order given; what a glob or a directory holds, in the order of names.

    Raises
    ------
    CheckpointError
        If a glob meets nothing, or a list can't be read, is empty or names another list.
    """
    found: dict[str, str] = {}
    for argument in given:
        for path in _meant(os.fsdecode(argument)):
            place = _place(path)
            known = found.get(place)
            # Of a link and what it leads to, the latter has the better name: latest -> step01400.
            if known is None or (Path(known).is_symlink() and not Path(path).is_symlink()):
                found[place] = path
    return list(found.values())


def _meant(argument: str) -> Iterator[str]:
    if _is_list(argument):
        for line in _lines(argument):
            if _is_list(line):
                raise CheckpointError(f"{argument}: names the list {line}; write its lines here instead")
            yield from _expanded(line, argument)
    else:
        yield from _expanded(argument, None)


def _is_list(argument: str) -> bool:
    if os.path.lexists(argument):
        return argument.lower().endswith(_LIST_SUFFIX) and not Path(argument).is_dir()
    named = argument.lower().endswith(_LIST_SUFFIX) and not glob.has_magic(argument)
    return named or argument.startswith(_LIST_MARK)


def _lines(argument: str) -> list[str]:
    path = argument if os.path.lexists(argument) else argument.removeprefix(_LIST_MARK)
    with opened(path) as file:
        if file.size > _LONGEST_LIST:
            raise CheckpointError(
                f"{path}: list of {file.size} bytes, over {_LONGEST_LIST}; is it one of paths?"
            )
        content = bytes(file.read(0, file.size))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise CheckpointError(f"{path}: not UTF-8 text ({fault.reason}); write a path a line") from None
    lines = [line.strip() for line in text.splitlines()]
    listed = [line for line in lines if line and not line.startswith("#")]
    if not listed:
        raise CheckpointError(f"{path}: no path in it; write a path a line")
    return listed


def _expanded(argument: str, listed_in: str | None) -> Iterator[str]:
    if not _is_pattern(argument):
        yield from _of_directory(argument)
        return
    met = sorted(glob.iglob(argument, recursive=True))  # noqa: PTH207  (a pattern may be absolute)
    if not met:
        where = f"{listed_in}: " if listed_in else ""
        raise CheckpointError(f"{where}nothing meets {argument}; see what is there with ls")
    for path in met:
        yield from _of_directory(path)


def _is_pattern(argument: str) -> bool:
    return glob.has_magic(argument) and not os.path.lexists(argument)


def _of_directory(path: str) -> Iterator[str]:
    """The checkpoints of a directory that holds several, else the path itself."""
    if not path or not Path(path).is_dir():
        yield path
        return
    names = _visible(path)
    own = weights_among(names)
    if own:
        yield from (str(Path(path, name)) for name in own) if _are_steps(own) else (path,)
        return
    inner = [
        str(Path(path, name))
        for name in names
        if Path(path, name).is_dir()
        and (step_in_name(name) is not None or weights_among(_visible(str(Path(path, name)))))
    ]
    yield from inner or (path,)


def _visible(directory: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(directory) if not entry.name.startswith("."))
    except OSError as fault:
        raise unreadable(directory, fault) from None


def _are_steps(names: list[str]) -> bool:
    # Shards of one checkpoint may be named after its step, then all after the same.
    steps = [step_in_name(name) for name in names]
    return len(steps) > 1 and None not in steps and len(set(steps)) == len(steps)


def _place(path: str) -> str:
    """What tells a checkpoint from others: a directory's only index stands for it."""
    real = Path(os.path.realpath(path))
    if is_index(real.name) and real.is_file():
        decisive = weights_among(_visible(str(real.parent)))
        return str(real.parent if decisive == [real.name] else real)
    return str(real)
