"""PyTorch's zip files (``.pt``, ``.pth``, ``.bin``): described by a pickle, storages stored as they are.

The pickle is read as a description, by `torch_pickle`; it is never run. See
https://docs.pytorch.org/docs/stable/notes/serialization.html for the records of such a file.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from rct_ray.checkpoint.catalogue import FileContents, FileInfo, TensorEntry
from rct_ray.checkpoint.dtypes import STORED
from rct_ray.checkpoint.errors import CheckpointError, quoted
from rct_ray.checkpoint.files import OpenFile, opened
from rct_ray.checkpoint.torch_names import is_harmless
from rct_ray.checkpoint.torch_pickle import read_pickle
from rct_ray.checkpoint.torch_tensors import TorchTensor, tensors_in
from rct_ray.checkpoint.zips import member_start, zip_directory

_LONGEST_PICKLE = 64 << 20
_STEP_KEYS = ("step", "global_step", "iteration")
_ADVICE = "save it anew with torch.save, or as safetensors"
_METHODS = (zipfile.ZIP_STORED,)
# What lies behind a record: its descriptor, or else the next one or the directory. A damaged length in a local
# header would otherwise move the values.
_SIZES_FOLLOW = 8
_DESCRIPTOR, _NEXT = (b"PK\x07\x08",), (b"PK\x03\x04", b"PK\x01\x02")
# A pickle of torch's magic number, protocol 2: how files began before PyTorch 1.6.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"


def read_torch(path: str) -> FileContents:
    """Read and check the records of a PyTorch file and what its pickle describes; no storage is read.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    FileContents
        Every tensor in it, however nested, with dots between the keys; those that have exactly the place of an
        earlier one in a storage are `tied` to it.
    """
    with opened(path) as file:
        _check_zip(file)
        members, directory_start = zip_directory(file)
        places = _places(file, members, directory_start)
        prefix = _prefix(path, places)
        order = _record(file, places, f"{prefix}byteorder") if f"{prefix}byteorder" in places else b"little"
        if order.strip() != b"little":
            raise CheckpointError(f"{path}: byte order {order[:20]!r}, not little; {_ADVICE}")
        raw = _record(file, places, f"{prefix}data.pkl")
        info = file.info(raw + file.read(directory_start, file.size - directory_start))
    tree = read_pickle(raw, path, is_harmless)
    tensors = tensors_in(tree, path, Path(path).stem)
    return FileContents(info, _entries(info, tensors, places, prefix), _metadata(tree))


def _check_zip(file: OpenFile) -> None:
    head = file.read(0, min(file.size, len(_LEGACY)))
    if head.startswith(b"PK\x03\x04"):
        return
    legacy = " but its format from before 1.6, a bare pickle" if head == _LEGACY else ""
    raise CheckpointError(
        f"{file.path}: no zip file of PyTorch{legacy}: only those are read; load it with torch and save it anew, "
        "best as safetensors"
    )


def _places(
    file: OpenFile, members: list[zipfile.ZipInfo], directory_start: int
) -> dict[str, tuple[zipfile.ZipInfo, int]]:
    """Return each record and where it starts, once all are known to be stored apart from each other."""
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise CheckpointError(f"{file.path}: TorchScript, a program; save the module's state_dict instead")
    places, spans = {}, []
    for member in members:
        name = member.filename
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or "\\" in member.orig_filename:
            raise CheckpointError(
                f"{file.path}: member {quoted(name)} leads elsewhere; do not trust this file"
            )
        start = member_start(
            file, member, directory_start, methods=(zipfile.ZIP_STORED,), advice=_ADVICE, exact=True
        )
        if member.compress_size != member.file_size:
            raise CheckpointError(
                f"{file.path}: member {quoted(name)}: stored in {member.compress_size} bytes but "
                f"{member.file_size} bytes long; {_ADVICE}"
            )
        behind = _DESCRIPTOR if member.flag_bits & _SIZES_FOLLOW else _NEXT
        if file.read(start + member.file_size, 4) not in behind:
            raise CheckpointError(
                f"{file.path}: member {quoted(name)}: its local header leads past its end; copy it anew"
            )
        places[name] = (member, start)
        spans.append((member.header_offset, start + member.file_size, name))
    reached = 0
    for begin, stop, name in sorted(spans):
        if begin < reached:
            raise CheckpointError(
                f"{file.path}: member {quoted(name)} overlaps the one before it; do not trust this file"
            )
        reached = stop
    return places


def _prefix(path: str, places: dict[str, Any]) -> str:
    found = [name for name in places if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1:
        count = "no" if not found else f"{len(found)} times"
        raise CheckpointError(f"{path}: {count} NAME/data.pkl in the zip, so no PyTorch file; {_ADVICE}")
    return found[0].removesuffix("data.pkl")


def _record(file: OpenFile, places: dict[str, tuple[zipfile.ZipInfo, int]], name: str) -> bytes:
    member, start = places[name]
    if member.file_size > _LONGEST_PICKLE:
        raise CheckpointError(
            f"{file.path}: member {quoted(name)} of {member.file_size} bytes, over {_LONGEST_PICKLE}; "
            "save the weights alone"
        )
    raw = file.read(start, member.file_size)
    # torch writes 0 where it was told to compute no checksums.
    if member.CRC and zlib.crc32(raw) != member.CRC:
        raise CheckpointError(f"{file.path}: member {quoted(name)} fails its checksum; copy it anew")
    return raw


def _entries(
    info: FileInfo,
    tensors: list[TorchTensor],
    places: dict[str, tuple[zipfile.ZipInfo, int]],
    prefix: str,
) -> list[TensorEntry]:
    entries: list[TensorEntry] = []
    first: dict[tuple[object, ...], str] = {}
    for tensor in tensors:
        entry = _entry(info, tensor, places, prefix)
        if entry.skip_reason is None:
            place = (tensor.storage, tensor.dtype, tensor.shape, entry.offset, entry.strides)
            owner = first.setdefault(place, tensor.name)
            if owner != tensor.name:
                entry = replace(entry, tied=owner)
        entries.append(entry)
    return entries


def _entry(
    info: FileInfo, tensor: TorchTensor, places: dict[str, tuple[zipfile.ZipInfo, int]], prefix: str
) -> TensorEntry:
    size = tensor.itemsize
    start = nbytes = 0
    if tensor.storage:
        start = _storage_start(info, tensor, places, prefix) + tensor.offset * size
        nbytes = prod(tensor.shape) * size
    stored = STORED.get(tensor.dtype, "")
    strides = None
    if tensor.strides and not tensor.contiguous:
        strides = tuple(stride * size for stride in tensor.strides)
    return TensorEntry(
        tensor.name,
        info,
        tensor.dtype,
        tensor.shape,
        nbytes,
        start,
        stored,
        strides=strides,
        skipped=tensor.reason,
    )


def _storage_start(
    info: FileInfo, tensor: TorchTensor, places: dict[str, tuple[zipfile.ZipInfo, int]], prefix: str
) -> int:
    where = f"{info.path}: tensor {quoted(tensor.name)}"
    place = places.get(f"{prefix}data/{tensor.storage}")
    if place is None:
        raise CheckpointError(f"{where}: storage {quoted(tensor.storage)} is not in the file; copy it anew")
    member, start = place
    expected = tensor.count * tensor.itemsize
    if member.file_size != expected:
        raise CheckpointError(
            f"{where}: storage {quoted(tensor.storage)} has {member.file_size} bytes, not the {expected} of "
            f"{tensor.count} elements; copy it anew"
        )
    return start


def _metadata(tree: Any) -> dict[str, str]:
    """What the outermost dict says of the training step."""
    if type(tree) is not dict:
        return {}
    steps = (tree.get(key) for key in _STEP_KEYS)
    step = next((step for step in steps if type(step) is int), None)
    return {} if step is None else {"step": str(step)}
