"""A directory of files as one checkpoint, with or without an index, and which links in it are followed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rct_ray.checkpoint.catalogue import FileContents
from rct_ray.checkpoint.errors import CheckpointError, quoted
from rct_ray.checkpoint.files import opened, unreadable
from rct_ray.checkpoint.formats import EXPECTED, indexed_suffixes, is_index, read_file, weights_among
from rct_ray.checkpoint.jsontext import parse_object

_SHARD_NAME = re.compile(r"[A-Za-z0-9._-]+\.[a-z]+")
_LONGEST_INDEX = 100_000_000


def read_directory(path: str) -> tuple[list[FileContents], dict[str, str]]:
    """Read the headers of all files of the checkpoint in a directory.

    Parameters
    ----------
    path : str
        The directory.

    Returns
    -------
    contents : list of FileContents
        File by file.
    metadata : dict of str to str
        The index's own, empty without one.
    """
    try:
        # Hidden files are not shards: file managers and rsync leave theirs beside them, with the same suffix.
        names = sorted(entry.name for entry in Path(path).iterdir() if not entry.name.startswith("."))
    except OSError as fault:
        raise unreadable(path, fault) from None
    found = weights_among(names)
    if not found:
        raise CheckpointError(f"no checkpoint in directory {path}, expected one of {EXPECTED}")
    if not is_index(found[0]):
        return [read_file(_inside(path, name)) for name in found], {}
    if len(found) > 1:
        listed = ", ".join(map(quoted, found[:5]))
        raise CheckpointError(f"{path}: {len(found)} indexes ({listed}); give the path of one of them")
    return read_index(_inside(path, found[0]))


def read_index(path: str) -> tuple[list[FileContents], dict[str, str]]:
    """Read an index and the headers of all shards it names.

    Parameters
    ----------
    path : str
        The ``*.safetensors.index.json`` or ``*.bin.index.json``.

    Returns
    -------
    contents : list of FileContents
        Shard by shard, sorted by name. Tensors of a shard that the index does not list are there too.
    metadata : dict of str to str
        The index's own.
    """
    with opened(path) as file:
        if file.size > _LONGEST_INDEX:
            raise CheckpointError(
                f"{path}: index of {file.size} bytes, over {_LONGEST_INDEX}; is it an index?"
            )
        index = parse_object(file.read(0, file.size), path)
    listed = _weight_map(path, index.get("weight_map"))
    contents = []
    for shard in sorted(listed):
        shard_path = _inside(str(Path(path).parent), shard)
        if not Path(shard_path).exists():
            raise CheckpointError(f"{path}: shard {quoted(shard)} is missing from its directory; download it")
        found = read_file(shard_path)
        here = {entry.name for entry in found.tensors}
        absent = next((name for name in listed[shard] if name not in here), None)
        if absent is not None:
            raise CheckpointError(
                f"{path}: tensor {quoted(absent)} is not in shard {quoted(shard)}, where the index has it; "
                "download both anew"
            )
        contents.append(found)
    return contents, _scalars(index.get("metadata"))


def _weight_map(path: str, weight_map: Any) -> dict[str, list[str]]:
    """Return the tensors that an index lists, by shard, once every shard's name is known to be harmless."""
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: no weight_map from tensors to files; save the index anew")
    listed: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            raise CheckpointError(
                f"{path}: weight_map: tensor {quoted(name)} has no file name; save the index anew"
            )
        listed.setdefault(shard, []).append(name)
    suffixes = indexed_suffixes(path)
    for shard in listed:
        if not _SHARD_NAME.fullmatch(shard) or not shard.endswith(suffixes):
            raise CheckpointError(
                f"{path}: weight_map: {quoted(shard)} is not the plain name of a {suffixes[0]} file; "
                "do not trust this index"
            )
    return listed


def _scalars(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict):
        return {}
    return {key: str(value) for key, value in metadata.items() if isinstance(value, str | int | float)}


def _inside(directory: str, name: str) -> str:
    """Return the path of a file in a directory, unless it is a link that leads out of it.

    A downloaded directory must not be able to name the reader's other files. The one link outside that is
    right is Hugging Face's cache: ``<root>/snapshots/<revision>/<file>`` to ``<root>/blobs/<hash>``.
    """
    path = Path(directory, name)
    try:
        root, real = Path(directory).resolve(), path.resolve()
    except (OSError, RuntimeError) as fault:
        raise CheckpointError(f"{path}: link that leads nowhere ({fault}); copy the file") from None
    allowed = [root, *(parent.parent / "blobs" for parent in root.parents if parent.name == "snapshots")]
    if not any(real.is_relative_to(place) for place in allowed):
        raise CheckpointError(
            f"{path}: link to {real}, outside its directory; copy the file, or give its own path"
        )
    return str(path)
