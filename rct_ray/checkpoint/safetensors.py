"""The safetensors format: the whole header is checked before one byte of data is believed.

A file is 8 bytes (the header's length, little endian), the header (JSON, may be padded with spaces), the
values. See https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

from typing import Any

from rct_ray.checkpoint.catalogue import FileContents, FileInfo, TensorEntry
from rct_ray.checkpoint.dtypes import BITS, STORED
from rct_ray.checkpoint.errors import CheckpointError, quoted
from rct_ray.checkpoint.files import OpenFile, opened
from rct_ray.checkpoint.jsontext import parse_object

LONGEST_HEADER = 100_000_000
_FIELDS = {"dtype", "shape", "data_offsets"}
# The format counts in 64 bits. Stopping there also keeps a shape of a million huge axes from taking forever.
_MOST_BITS = 2**64


def read_safetensors(path: str) -> FileContents:
    """Read and check the header of a safetensors file.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    FileContents
        Its tensors in the order of the header, and its metadata.
    """
    with opened(path) as file:
        raw = _header_bytes(file)
        header = parse_object(raw[8:], f"{path}: header")
        metadata = _metadata(path, header.pop("__metadata__", {}))
        begin = len(raw)
        spans: list[tuple[int, int, str]] = []
        tensors: list[TensorEntry] = []
        info = file.info(raw)
        for name, fields in header.items():
            entry = _entry(info, name, fields, begin)
            tensors.append(entry)
            spans.append((entry.offset - begin, entry.offset - begin + entry.nbytes, name))
        _check_tiling(file, begin, spans)
    return FileContents(info, tensors, metadata)


def _header_bytes(file: OpenFile) -> bytes:
    if file.size < 8:
        raise _truncated(file, "a safetensors file has at least 8")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > LONGEST_HEADER:
        raise CheckpointError(
            f"{file.path}: header length {length} is over {LONGEST_HEADER} bytes; is it a safetensors file?"
        )
    if 8 + length > file.size:
        raise _truncated(file, f"header promises {8 + length}")
    raw = file.read(0, 8 + length)
    if raw[8:9] != b"{":
        raise CheckpointError(f"{file.path}: header does not begin with '{{'; is it a safetensors file?")
    return raw


def _truncated(file: OpenFile, promise: str) -> CheckpointError:
    return CheckpointError(f"{file.path}: truncated: {promise} bytes, the file has {file.size}; copy it anew")


def _metadata(path: str, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ is not a map of strings to strings; save it anew")
    return metadata


def _is_size(value: Any) -> bool:
    # type(), for True is an int to isinstance.
    return type(value) is int and value >= 0


def _entry(info: FileInfo, name: str, fields: Any, begin: int) -> TensorEntry:
    def bad(what: str) -> CheckpointError:
        return CheckpointError(f"{info.path}: tensor {quoted(name)}: {what}; save the file anew")

    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise bad("its header has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str):
        raise bad("dtype is not a string")
    if dtype not in BITS:
        raise bad(f"unknown dtype {quoted(dtype)}")
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise bad("shape is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise bad("data_offsets are not two sizes")
    bits = BITS[dtype]
    for axis in shape:
        bits *= axis
        if bits >= _MOST_BITS:
            raise bad("shape has more elements than 64 bits can count")
    start, stop = offsets
    if start > stop:
        raise bad(f"data_offsets [{start}, {stop}] end before they start")
    if bits != 8 * (stop - start):
        raise bad(f"shape and dtype need {_bytes(bits)}, data_offsets span {stop - start}")
    return TensorEntry(name, info, dtype, tuple(shape), stop - start, begin + start, STORED.get(dtype, ""))


def _bytes(bits: int) -> str:
    return f"{bits // 8} bytes" if bits % 8 == 0 else f"{bits} bits, which are no whole bytes"


def _check_tiling(file: OpenFile, begin: int, spans: list[tuple[int, int, str]]) -> None:
    """Refuse holes, overlaps, and a file that is not exactly as long as its tensors."""
    reached = 0
    spans.sort()
    for start, stop, name in spans:
        if start != reached:
            fault = "overlaps the tensor before it" if start < reached else "leaves a hole before it"
            raise CheckpointError(
                f"{file.path}: tensor {quoted(name)}: data_offsets [{start}, {stop}] {fault} "
                f"(which ends at {reached}); save the file anew"
            )
        reached = stop
    promised = begin + reached
    if promised > file.size:
        raise _truncated(file, f"header promises {promised}")
    if promised < file.size:
        raise CheckpointError(
            f"{file.path}: {file.size - promised} bytes after the last tensor: "
            f"header promises {promised} bytes, the file has {file.size}; save it anew"
        )
