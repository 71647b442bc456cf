"""What a checkpoint holds: its files, its tensors, and how each tensor is seen as a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from rct_ray.checkpoint.dtypes import refusal


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a checkpoint, as it was when the checkpoint was opened.

    Attributes
    ----------
    path : str
        Absolute path; links are kept as they are.
    size : int
        Bytes.
    mtime_ns : int
        Time of the last change.
    header_sha256 : str
        Digest of the bytes that describe the values: a safetensors header with its length, an ``.npy``
        header, the central directory of an ``.npz``, that and the pickle of a PyTorch file.
    """

    path: str
    size: int
    mtime_ns: int
    header_sha256: str


@dataclass(frozen=True, slots=True)
class DeflatedMember:
    """Where the deflated member of an ``.npz`` that holds a tensor lies.

    Attributes
    ----------
    packed : int
        Compressed bytes, from the tensor's `offset` on.
    header : int
        Decompressed bytes before the first value.
    crc : int
        CRC-32 of the whole decompressed member.
    """

    packed: int
    header: int
    crc: int


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a checkpoint: where its values lie and which matrix they are.

    A 2-D tensor is itself. With more axes the trailing ones fold (a convolution is out x in*kh*kw), except
    in a 3-D stack of experts (experts x out x in), where the leading ones do. A stack is known by its name:
    a dotted component that starts with ``expert``, or is ``moe``.

    Attributes
    ----------
    name : str
        The tensor's name.
    file : FileInfo
        The file that holds it.
    dtype : str
        safetensors' name of the element type, or NumPy's string where safetensors has none.
    shape : tuple of int
        The tensor's shape.
    nbytes : int
        Bytes of the values.
    offset : int
        First byte of the values in the file; of the compressed stream if they are deflated.
    stored : str
        The NumPy or ml_dtypes type of the bytes, ``''`` if they cannot be analysed.
    fortran : bool
        Whether the first axis varies fastest.
    deflated : DeflatedMember or None
        Set when the values are compressed.
    scale : str or None
        Name of the tensor that holds this FP8 tensor's scale.
    strides : tuple of int or None
        Bytes from one place on each axis to the next, where the values do not lie one after the other.
    tied : str or None
        Name of an earlier tensor that is known to be the same bytes.
    skipped : str or None
        Why the format's reader says that it can't be analysed.
    """

    name: str
    file: FileInfo
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int
    stored: str = ""
    fortran: bool = False
    deflated: DeflatedMember | None = None
    scale: str | None = None
    strides: tuple[int, ...] | None = None
    tied: str | None = None
    skipped: str | None = None

    @property
    def stacked(self) -> bool:
        """Whether this is a stack of experts, so that the leading axes fold."""
        if len(self.shape) != 3:
            return False
        return any(part.startswith("expert") or part == "moe" for part in self.name.lower().split("."))

    @property
    def rows(self) -> int:
        """Rows of the matrix the tensor is folded to; 0 when it is not a matrix."""
        if len(self.shape) < 2:
            return 0
        return self.shape[0] * self.shape[1] if self.stacked else self.shape[0]

    @property
    def width(self) -> int:
        """Columns of the matrix the tensor is folded to; 0 when it is not a matrix."""
        if len(self.shape) < 2:
            return 0
        return self.shape[2] if self.stacked else prod(self.shape[1:])

    @property
    def skip_reason(self) -> str | None:
        """Why the tensor can never be analysed; None when it can."""
        if self.skipped is not None:
            return self.skipped
        if self.dtype == "|O":
            return refusal(self.dtype)
        if len(self.shape) < 2:
            return "1-D" if self.shape else "scalar"
        if not self.stored:
            return refusal(self.dtype)
        if 0 in self.shape:
            return "no elements"
        if self.scale is not None:
            return f"FP8 with separate scales in {self.scale}, which are not applied"
        return None

    @property
    def seekable(self) -> bool:
        """Whether rows can be read without reading those before; not so in a deflated member."""
        return self.deflated is None

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The type rows are read as: float64 for F64, float32 for every narrower one."""
        return np.dtype(np.float64 if self.dtype == "F64" else np.float32)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint: every tensor of one file or of one directory of files.

    Attributes
    ----------
    path : str
        As the user gave it.
    name : str
        The file's name without its suffix, or the directory's.
    step : int or None
        Training step, from the metadata or the name.
    files : tuple of FileInfo
        In the order read.
    tensors : tuple of TensorEntry
        All of them, also those that are never analysed, in the order of the headers.
    metadata : dict of str to str
        Of the index and of all files; the first to name a key wins.
    """

    path: str
    name: str
    step: int | None
    files: tuple[FileInfo, ...]
    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, str]


class FileContents(NamedTuple):
    """What one file adds to a checkpoint.

    Attributes
    ----------
    file : FileInfo
        The file.
    tensors : list of TensorEntry
        Its tensors.
    metadata : dict of str to str
        Its metadata.
    """

    file: FileInfo
    tensors: list[TensorEntry]
    metadata: dict[str, str]
