"""NumPy's ``.npz`` format: a zip of ``.npy`` members, stored or deflated, read in place."""

from __future__ import annotations

import zipfile

from rct_ray.checkpoint.catalogue import DeflatedMember, FileContents, FileInfo, TensorEntry
from rct_ray.checkpoint.deflate import MOST_EXPANSION, DeflatedStream
from rct_ray.checkpoint.errors import CheckpointError, quoted
from rct_ray.checkpoint.files import OpenFile, opened
from rct_ray.checkpoint.npy import LONGEST_HEADER, npy_entry, parse_npy_header
from rct_ray.checkpoint.zips import member_start, zip_directory


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
        members, directory_start = zip_directory(file)
        info = file.info(file.read(directory_start, file.size - directory_start))
        arrays = (member for member in members if member.filename.endswith(".npy"))
        tensors = [_member_entry(file, info, member, directory_start) for member in arrays]
    if not tensors:
        raise CheckpointError(f"{path}: no .npy member; save arrays with numpy.savez")
    return FileContents(info, tensors, {})


def _member_entry(
    file: OpenFile, info: FileInfo, member: zipfile.ZipInfo, directory_start: int
) -> TensorEntry:
    where = f"{file.path}: member {quoted(member.filename)}"
    start = member_start(file, member, directory_start)
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
