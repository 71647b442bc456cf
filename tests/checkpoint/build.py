"""Small checkpoints for the tests, valid and (by hand) invalid."""

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from rct_ray.checkpoint import Checkpoint, CheckpointError, RowReader, TensorEntry, open_checkpoint

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
NAMES = {np.dtype(kind): name for name, kind in DTYPES.items()} | {
    np.dtype(kind): name
    for name, kind in (("I64", "i8"), ("U8", "u1"), ("BOOL", "?"), ("C64", "c8"), ("I32", "i4"))
}


def raw_file(path: Path, header: bytes | dict[str, Any], data: bytes = b"") -> Path:
    """A safetensors file with exactly this header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def header_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    return header


def save(path: Path, arrays: dict[str, np.ndarray], **metadata: str) -> Path:
    """A valid safetensors file, in the order of the arrays, written without the library."""
    extra = {"__metadata__": metadata} if metadata else {}
    return raw_file(path, extra | header_of(arrays), b"".join(array.tobytes() for array in arrays.values()))


def save_index(directory: Path, shards: dict[str, dict[str, np.ndarray]]) -> Path:
    for shard, arrays in shards.items():
        save(directory / shard, arrays)
    weight_map = {name: shard for shard, arrays in shards.items() for name in arrays}
    return write_index(directory, weight_map)


def write_index(directory: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> Path:
    index = directory / name
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def save_member(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(name, "w") as stream:
        np.lib.format.write_array(stream, array)


def weights(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def only(checkpoint: Checkpoint) -> TensorEntry:
    assert len(checkpoint.tensors) == 1
    return checkpoint.tensors[0]


def matrix(entry: TensorEntry, block: int | None = None) -> np.ndarray:
    """All rows of a tensor, read block by block into one reused buffer."""
    block = block or max(entry.rows, 1)
    out = np.full((block, entry.width), np.nan, entry.value_dtype)
    starts = range(0, entry.rows, block)
    with RowReader(entry) as reader:
        return np.concatenate([reader.read(s, min(s + block, entry.rows), out).copy() for s in starts])


def read_all(path: Path) -> dict[str, np.ndarray]:
    return {t.name: matrix(t) for t in open_checkpoint(path).tensors if t.skip_reason is None}


def refused(path: Path) -> str | None:
    """Read all that can be read; the message if that is refused. Any other exception is a failed test."""
    try:
        for entry in open_checkpoint(path).tensors:
            if entry.skip_reason is None:
                assert matrix(entry, 3).shape == (entry.rows, entry.width)
    except CheckpointError as fault:
        return str(fault)
    return None
