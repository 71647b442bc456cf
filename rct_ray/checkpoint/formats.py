"""Which reader reads which file, and which files of a directory are a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rct_ray.checkpoint.catalogue import FileContents
from rct_ray.checkpoint.errors import CheckpointError
from rct_ray.checkpoint.npy import read_npy
from rct_ray.checkpoint.npz import read_npz
from rct_ray.checkpoint.safetensors import read_safetensors
from rct_ray.checkpoint.torch_zip import read_torch

_INDEXED = {".safetensors.index.json": (".safetensors",), ".bin.index.json": (".bin", ".pt", ".pth")}
_READERS: dict[str, Callable[[str], FileContents]] = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".npy": read_npy,
    ".bin": read_torch,
    ".pt": read_torch,
    ".pth": read_torch,
    ".ckpt": read_torch,
}
SUFFIXES = tuple(_READERS)
"""Suffixes of files of weights."""

_SEARCHED = (".safetensors.index.json", ".safetensors", ".npz", ".npy", ".bin.index.json", *SUFFIXES[3:])
EXPECTED = ", ".join(f"*{suffix}" for suffix in _SEARCHED)
"""What a directory is searched for, in this order, for a message."""

_SUPPORTED = (
    f"{', '.join(SUFFIXES)}, {', '.join(f'*{end}' for end in _INDEXED)}, or a directory of such files"
)
_OTHER_PICKLES = (".pkl", ".pickle")


def is_index(path: str) -> bool:
    """Whether a path is that of an index, by its name."""
    return path.endswith(tuple(_INDEXED))


def indexed_suffixes(path: str) -> tuple[str, ...]:
    """Suffixes of the files that an index of this name may list."""
    return next(suffixes for end, suffixes in _INDEXED.items() if path.endswith(end))


def weights_among(names: Iterable[str]) -> list[str]:
    """Return the files that make a directory a checkpoint: its indexes, or all files of the first format there is.

    Parameters
    ----------
    names : iterable of str
        What the directory holds.

    Returns
    -------
    list of str
        In the order given. ``.bin`` is anyone's suffix, and trainers leave the state of the training beside the
        weights in it: such a file is one of weights if its name says ``model``.
    """
    known = list(names)
    for suffix in _SEARCHED:
        found = [name for name in known if (name if is_index(suffix) else name.lower()).endswith(suffix)]
        if suffix == ".bin":
            found = [name for name in found if "model" in name.lower()]
        if found:
            return found
    return []


def read_file(path: str) -> FileContents:
    """Read the header of one file of a checkpoint.

    Parameters
    ----------
    path : str
        The file; its suffix says what it is.

    Returns
    -------
    FileContents
        What it holds.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _READERS:
        return _READERS[suffix](path)
    if suffix in _OTHER_PICKLES:
        raise CheckpointError(f"{path}: bare pickles are not read; convert to safetensors")
    raise CheckpointError(f"{path}: unknown suffix '{suffix}'; supported are {_SUPPORTED}")
