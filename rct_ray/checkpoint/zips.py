"""Zip files, as far as formats are made of them: their directory, and where a member's bytes lie.

Member names are only ever names; nothing is unpacked to disk.
"""

from __future__ import annotations

import io
import struct
import zipfile

from rct_ray.checkpoint.errors import CheckpointError, quoted, reason
from rct_ray.checkpoint.files import OpenFile

_LOCAL_HEADER = struct.Struct("<4s2xHH8xIIHH")
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 1, 8, 0x800
_SIZE_ELSEWHERE = 0xFFFFFFFF
_LONGEST_DIRECTORY = 32 << 20


class _Bounded(io.FileIO):
    """A file of which the directory's reader takes no more than it should at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LONGEST_DIRECTORY:
            raise ValueError(f"directory of {size} bytes, over {_LONGEST_DIRECTORY}")
        return super().read(-1 if size is None else size) or b""


def zip_directory(file: OpenFile) -> tuple[list[zipfile.ZipInfo], int]:
    """Read the directory of a zip file.

    Parameters
    ----------
    file : OpenFile
        The file.

    Returns
    -------
    members : list of zipfile.ZipInfo
        In the order of the directory, no name twice.
    start : int
        Where the directory starts, behind all members.
    """
    try:
        with _Bounded(file.fd, "rb", closefd=False) as stream, zipfile.ZipFile(stream) as archive:
            members, start = archive.infolist(), archive.start_dir
    except Exception as fault:
        # A damaged directory raises BadZipFile, struct.error, OSError, NotImplementedError and more.
        raise CheckpointError(f"{file.path}: zip directory: {reason(fault)}; copy it anew") from None
    seen: set[str] = set()
    for member in members:
        if member.filename in seen:
            raise CheckpointError(f"{file.path}: duplicate member {quoted(member.filename)}; save it anew")
        seen.add(member.filename)
    return members, start


def member_start(
    file: OpenFile,
    member: zipfile.ZipInfo,
    directory_start: int,
    *,
    methods: tuple[int, ...] = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    advice: str = "save it with numpy.savez",
    exact: bool = False,
) -> int:
    """Return where a member's data lies, which only its local header tells.

    Parameters
    ----------
    file : OpenFile
        The file.
    member : zipfile.ZipInfo
        The member, as the directory has it.
    directory_start : int
        Where the data of members must have ended.
    methods : tuple of int
        Methods of compression that are read.
    advice : str
        What to do about another one.
    exact : bool
        Whether the local header must have the directory's name and sizes, too.

    Returns
    -------
    int
        First byte of its data, all of which lie within the file.
    """
    where = f"{file.path}: member {quoted(member.filename)}"
    begin = member.header_offset
    if not 0 <= begin <= directory_start - _LOCAL_HEADER.size:
        raise CheckpointError(f"{where}: lies outside the file; copy it anew")
    magic, flags, method, packed, plain, name_length, extra_length = _LOCAL_HEADER.unpack(
        file.read(begin, _LOCAL_HEADER.size)
    )
    if magic != b"PK\x03\x04" or method != member.compress_type:
        raise CheckpointError(f"{where}: its local header and the zip directory disagree; save it anew")
    if (flags | member.flag_bits) & _ENCRYPTED:
        raise CheckpointError(f"{where}: encrypted; {advice}")
    if method not in methods:
        raise CheckpointError(f"{where}: compression method {method} is not read; {advice}")
    start = begin + _LOCAL_HEADER.size + int(name_length) + int(extra_length)
    if start + member.compress_size > directory_start:
        raise CheckpointError(f"{where}: lies outside the file; copy it anew")
    if exact:
        if not flags & _SIZES_FOLLOW and not _same_sizes(member, packed, plain):
            raise CheckpointError(
                f"{where}: its local header has other sizes than the zip directory; save it anew"
            )
        encoding = "utf-8" if member.flag_bits & _UTF8 else "cp437"
        if file.read(begin + _LOCAL_HEADER.size, name_length) != member.orig_filename.encode(encoding):
            raise CheckpointError(f"{where}: its local header has another name; do not trust this file")
    return start


def _same_sizes(member: zipfile.ZipInfo, packed: int, plain: int) -> bool:
    return packed in (member.compress_size, _SIZE_ELSEWHERE) and plain in (member.file_size, _SIZE_ELSEWHERE)
