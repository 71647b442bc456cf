"""Writing safetensors files in one pass: laid out before a value is known, and whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from rct_ray.checkpoint import CheckpointError
from rct_ray.checkpoint.dtypes import BITS
from rct_ray.rebuild.errors import RebuildError
from rct_ray.results.files import check_writable, sync_directory

SUFFIX = ".safetensors"
_INDEX = ".index.json"
_TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that is to be written: its name, safetensors' name of its type, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return prod(self.shape) * BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file to be, and its tensors in the order in which their values are written."""

    path: Path
    tensors: tuple[Planned, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """All files to be, and the index over them if there are several."""

    files: tuple[OutputFile, ...]
    index: Path | None

    @property
    def paths(self) -> list[Path]:
        """Of every file; the last is the one to open."""
        return [*(file.path for file in self.files), *([self.index] if self.index else [])]


def lay_out(path: Path, tensors: Sequence[Planned], most: int) -> Output:
    """Spread tensors over as few files as hold them in their order, none of more than `most` bytes of values.

    One file is `path` itself; several are numbered (``model-00001-of-00002.safetensors``), with an index
    (``model.safetensors.index.json``) beside them. A tensor larger than `most` has a file of its own.

    Raises
    ------
    RebuildError, ResultsError
        If a file is there already, can't be there, or would have a name that an index may not hold.
    """
    if path.suffix != SUFFIX:
        raise RebuildError(f"{path}: weights are written as safetensors; give a name that ends in {SUFFIX}")
    groups: list[list[Planned]] = [[]]
    held = 0
    for tensor in tensors:
        if groups[-1] and held + tensor.nbytes > most:
            groups.append([])
            held = 0
        groups[-1].append(tensor)
        held += tensor.nbytes
    output = _named(path, groups)
    for one in output.paths:
        check_writable(one)
        if os.path.lexists(one):
            raise RebuildError(f"{one} is there already; delete it or write to another file")
    return output


def _named(path: Path, groups: Sequence[Sequence[Planned]]) -> Output:
    if len(groups) == 1:
        return Output((OutputFile(path, _aligned(groups[0])),), None)
    if not re.fullmatch(r"[A-Za-z0-9._-]+", path.name):
        raise RebuildError(
            f"{path}: {len(groups)} files need an index, whose names are of letters, digits, '.', '_' and '-'"
        )
    files = [
        OutputFile(path.with_name(f"{path.stem}-{number:05}-of-{len(groups):05}{SUFFIX}"), _aligned(group))
        for number, group in enumerate(groups, start=1)
    ]
    return Output(tuple(files), path.with_name(path.name + _INDEX))


def _aligned(tensors: Iterable[Planned]) -> tuple[Planned, ...]:
    """Widest types first, so that every value lies at a multiple of its size; readers map the file."""
    return tuple(sorted(tensors, key=lambda tensor: -BITS[tensor.dtype]))


@contextlib.contextmanager
def whole_files(output: Output, metadata: Mapping[str, str]) -> Iterator[list[BinaryIO]]:
    """Open the files of an output, headers written; they get their names when all are whole and on disk.

    Parameters
    ----------
    output : Output
    metadata : mapping of str to str

    Yields
    ------
    list of BinaryIO
        One a file, at the first value; values follow in the order of the file's tensors.

    Raises
    ------
    RebuildError
        If the system can't write them. Nothing of them then remains, whatever the error.
    """
    made: list[Path] = []
    try:
        with contextlib.ExitStack() as stack:
            files = []
            for file in output.files:
                stream = stack.enter_context(_temporary(file.path, made))
                stream.write(header(file.tensors, metadata))
                files.append(stream)
            yield files
            if output.index is not None:
                stream = stack.enter_context(_temporary(output.index, made))
                stream.write(_index(output))
                files.append(stream)
            for stream in files:
                stream.flush()
                os.fsync(stream.fileno())
        for path in output.paths:
            temporary = path.with_name(path.name + _TEMPORARY)
            temporary.rename(path)
            made[made.index(temporary)] = path
        sync_directory(output.paths[-1].parent)
    except BaseException as error:
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
        if isinstance(error, OSError):
            where = error.filename or output.paths[-1]
            raise RebuildError(f"cannot write {where}: {error.strerror or error}") from error
        raise


def _temporary(path: Path, made: list[Path]) -> BinaryIO:
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        stream = temporary.open("xb")
    except FileExistsError:
        raise RebuildError(
            f"{temporary} is there: {path.name} is being written, or was when its writer was killed; delete it then"
        ) from None
    made.append(temporary)
    return stream


def header(tensors: Iterable[Planned], metadata: Mapping[str, str]) -> bytes:
    """The header of a safetensors file, padded so that its values begin at a multiple of 8."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for tensor in tensors:
        stop = start + tensor.nbytes
        if tensor.name == "__metadata__":
            raise CheckpointError("a tensor of name '__metadata__' can't be in a safetensors file; rename it")
        fields[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _index(output: Output) -> bytes:
    where = {tensor.name: file.path.name for file in output.files for tensor in file.tensors}
    total = sum(tensor.nbytes for file in output.files for tensor in file.tensors)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2).encode()
