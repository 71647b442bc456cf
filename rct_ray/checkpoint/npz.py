"""NumPy's ``.npz`` format: a zip of ``.npy`` members, stored or deflated, read in place.

Member names are only ever names of tensors; nothing is unpacked to disk.
"""

from __future__ import annotations

import os
import struct
import zipfile

from rct_ray.checkpoint.catalogue import DeflatedMember, FileContents, FileInfo, TensorEntry
from rct_ray.checkpoint.deflate import MOST_EXPANSION, DeflatedStream
from rct_ray.checkpoint.errors import CheckpointError, quoted, reason
from rct_ray.checkpoint.files import OpenFile, opened
from rct_ray.checkpoint.npy import LONGEST_HEADER, npy_entry, parse_npy_header

_LOCAL_HEADER = struct.Struct("<4s2xHH16xHH")
_ENCRYPTED = 1


def read_npz(path: str) -> FileContents:
    """Read and check the directory of an ``.npz`` file and the header of every array in it.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    FileContents
        One tensor for each ``.npy`` member, in the order of the zip; other members are left alone.
    """
    with opened(path) as file:
        members, directory_start = _directory(file)
        info = file.info(file.read(directory_start, file.size - directory_start))
        seen: set[str] = set()
        tensors: list[TensorEntry] = []
        for member in members:
            if member.filename in seen:
                raise CheckpointError(f"{path}: duplicate member {quoted(member.filename)}; save it anew")
            seen.add(member.filename)
            if member.filename.endswith(".npy"):
                tensors.append(_member_entry(file, info, member, directory_start))
    if not tensors:
        raise CheckpointError(f"{path}: no .npy member; save arrays with numpy.savez")
    return FileContents(info, tensors, {})


def _directory(file: OpenFile) -> tuple[list[zipfile.ZipInfo], int]:
    try:
        with os.fdopen(file.fd, "rb", closefd=False) as stream, zipfile.ZipFile(stream) as archive:
            return archive.infolist(), archive.start_dir
    except Exception as fault:
        # A damaged directory raises BadZipFile, struct.error, OSError, NotImplementedError and more.
        raise CheckpointError(f"{file.path}: zip directory: {reason(fault)}; copy it anew") from None


def _member_entry(
    file: OpenFile, info: FileInfo, member: zipfile.ZipInfo, directory_start: int
) -> TensorEntry:
    where = f"{file.path}: member {quoted(member.filename)}"
    start = _data_start(file, member, directory_start, where)
    packed, plain = member.compress_size, member.file_size
    deflated = member.compress_type == zipfile.ZIP_DEFLATED
    if not deflated and packed != plain:
        raise CheckpointError(f"{where}: stored in {packed} bytes but {plain} bytes long; save it anew")
    if deflated and plain > MOST_EXPANSION * (packed + 1):
        raise CheckpointError(f"{where}: {packed} deflated bytes cannot hold {plain}; save it anew")
    head = bytearray(min(plain, LONGEST_HEADER))
    if deflated:
        stream = DeflatedStream(file.fd, where, start, packed, plain, member.CRC)
        stream.fill(memoryview(head), 0)
    else:
        head[:] = file.read(start, len(head))
    header = parse_npy_header(bytes(head), where)
    name = member.filename.removesuffix(".npy")
    room = plain - header.length
    if not deflated:
        return npy_entry(name, info, header, start + header.length, room)
    return npy_entry(name, info, header, start, room, DeflatedMember(packed, header.length, member.CRC))


def _data_start(file: OpenFile, member: zipfile.ZipInfo, directory_start: int, where: str) -> int:
    """Return where a member's data lies, which only its local header tells."""
    begin = member.header_offset
    if not 0 <= begin <= directory_start - _LOCAL_HEADER.size:
        raise CheckpointError(f"{where}: lies outside the file; copy it anew")
    magic, flags, method, name_length, extra_length = _LOCAL_HEADER.unpack(
        file.read(begin, _LOCAL_HEADER.size)
    )
    if magic != b"PK\x03\x04" or method != member.compress_type:
        raise CheckpointError(f"{where}: its local header and the zip directory disagree; save it anew")
    if (flags | member.flag_bits) & _ENCRYPTED:
        raise CheckpointError(f"{where}: encrypted; save it with numpy.savez")
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(f"{where}: compression method {method} is not read; save it with numpy.savez")
    start = begin + _LOCAL_HEADER.size + int(name_length) + int(extra_length)
    if start + member.compress_size > directory_start:
        raise CheckpointError(f"{where}: lies outside the file; copy it anew")
    return start
