"""Which reader reads which file."""

from __future__ import annotations

from pathlib import Path

from rct_ray.checkpoint.catalogue import FileContents
from rct_ray.checkpoint.errors import CheckpointError
from rct_ray.checkpoint.npy import read_npy
from rct_ray.checkpoint.npz import read_npz
from rct_ray.checkpoint.safetensors import read_safetensors

INDEX_SUFFIX = ".safetensors.index.json"
SUFFIXES = (".safetensors", ".npz", ".npy")
"""Formats in the order in which a directory is searched for them."""

_SUPPORTED = f"{', '.join(SUFFIXES)}, *{INDEX_SUFFIX}, or a directory of such files"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


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
    if suffix == ".safetensors":
        return read_safetensors(path)
    if suffix == ".npy":
        return read_npy(path)
    if suffix == ".npz":
        return read_npz(path)
    if suffix in _PICKLES:
        raise CheckpointError(f"{path}: PyTorch pickle files are not read; convert to safetensors")
    raise CheckpointError(f"{path}: unknown suffix '{suffix}'; supported are {_SUPPORTED}")
