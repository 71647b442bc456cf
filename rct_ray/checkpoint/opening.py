"""Opening a checkpoint: whatever the path is, all its tensors."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rct_ray.checkpoint.catalogue import Checkpoint, FileContents, TensorEntry
from rct_ray.checkpoint.directory import read_directory, read_index
from rct_ray.checkpoint.errors import CheckpointError, quoted
from rct_ray.checkpoint.files import unreadable
from rct_ray.checkpoint.formats import SUFFIXES, is_index, read_file
from rct_ray.checkpoint.steps import step_of


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and check the headers of a checkpoint; no values are read.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.safetensors``, ``.npz`` or ``.npy`` file, a PyTorch ``.pt``, ``.pth``, ``.bin`` or ``.ckpt``, an index
        (``*.safetensors.index.json``, ``*.bin.index.json``), or a directory. In a directory the index of
        safetensors decides; without one, all ``*.safetensors`` are the checkpoint, else all ``*.npz``, else all
        ``*.npy``, else PyTorch's files by their index or all of one suffix.

    Returns
    -------
    Checkpoint
        All its tensors.

    Raises
    ------
    CheckpointError
        If there is no checkpoint, or anything in it is not as its format demands.
    """
    given = os.fsdecode(path)
    is_directory = _is_directory(given)
    own: dict[str, str] = {}
    if is_directory:
        contents, own = read_directory(given)
    elif is_index(given):
        contents, own = read_index(given)
    else:
        contents = [read_file(given)]
    metadata = dict(own)
    for part in contents:
        metadata = part.metadata | metadata
    where = Path(given).absolute()
    name = _name(where, is_directory)
    return Checkpoint(
        path=given,
        name=name,
        step=step_of(metadata.get("step"), where, name),
        files=tuple(part.file for part in contents),
        tensors=tuple(_with_scales(_all_tensors(given, contents))),
        metadata=metadata,
    )


def _is_directory(path: str) -> bool:
    if not path:
        raise CheckpointError("empty path; give a file or a directory")
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as fault:
        raise unreadable(path, fault) from None
    return stat.S_ISDIR(mode)


def _all_tensors(path: str, contents: list[FileContents]) -> list[TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    for entry in (entry for part in contents for entry in part.tensors):
        first = tensors.setdefault(entry.name, entry)
        if first is not entry:
            raise CheckpointError(
                f"{path}: tensor {quoted(entry.name)} is both in {quoted(Path(first.file.path).name)} "
                f"and in {quoted(Path(entry.file.path).name)}; "
                "if these are several checkpoints, give each file's path"
            )
    return list(tensors.values())


def _with_scales(tensors: list[TensorEntry]) -> Iterable[TensorEntry]:
    """Mark the FP8 tensors whose values mean nothing without another tensor."""
    names = {entry.name for entry in tensors}
    for entry in tensors:
        if entry.dtype.startswith("F8_") and entry.stored:
            scale = next((name for name in _scale_names(entry.name) if name in names), None)
            yield replace(entry, scale=scale) if scale else entry
        else:
            yield entry


def _scale_names(name: str) -> Iterable[str]:
    yield from (f"{name}_scale_inv", f"{name}_scale")
    if name.endswith(".weight"):
        yield name.removesuffix("weight") + "scale"


def _name(path: Path, is_directory: bool) -> str:
    if is_directory:
        return path.resolve().name if path.name in ("", "..") else path.name
    if is_index(path.name):
        # The index stands for its directory: one checkpoint has one name.
        return path.parent.name
    return path.stem if path.suffix.lower() in SUFFIXES else path.name
