"""Element types: the names safetensors gives them, their size, and how NumPy reads them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element of every dtype that a safetensors header may name."""

STORED = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
"""The dtypes whose values can be analysed, and the NumPy (or ml_dtypes) type they lie in the file as."""

_NUMPY_NAMES = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "u4": "U32", "i4": "I32",
    "u8": "U64", "i8": "I64", "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64",
}  # fmt: skip


def stored_dtype(stored: str) -> np.dtype[Any]:
    """Return the NumPy type of stored values; loads ml_dtypes only for bfloat16 and FP8.

    Parameters
    ----------
    stored : str
        ``'<f4'``, ``'>f2'``, ``'bfloat16'``, ...

    Returns
    -------
    numpy.dtype
        The element type.
    """
    if stored[0] in "<>":
        return np.dtype(stored)
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, stored))
    return dtype


@cache
def widening_table(stored: str) -> NDArray[np.float32] | None:
    """Return the float32 value of every code of F16 and FP8; None for types that NumPy widens faster itself.

    Looking 131,072 values up takes 60 us, where their conversion takes 190 us (F16) and 670 us (FP8).

    Parameters
    ----------
    stored : str
        As for `stored_dtype`.

    Returns
    -------
    numpy.ndarray or None
        256 or 65,536 values, by code.
    """
    dtype = stored_dtype(stored)
    if dtype.itemsize > 2 or stored == "bfloat16":
        return None
    codes = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    return codes.view(dtype).astype(np.float32)


def name_of(dtype: np.dtype[Any]) -> str:
    """Return the safetensors name of a NumPy type, or NumPy's own string where there is none.

    Parameters
    ----------
    dtype : numpy.dtype
        A type as an ``.npy`` header describes it.

    Returns
    -------
    str
        ``'F32'`` for either byte order; ``'|O'`` for anything that holds Python objects.
    """
    if dtype.hasobject:
        return "|O"
    return _NUMPY_NAMES.get(dtype.str[1:], dtype.str)


def stored_as(dtype: np.dtype[Any]) -> str:
    """Return how values of a NumPy type are stored, ``''`` when they cannot be analysed.

    Parameters
    ----------
    dtype : numpy.dtype
        A type as an ``.npy`` header describes it.

    Returns
    -------
    str
        ``'<f4'``, ``'>f8'``, ... or ``''``.
    """
    return dtype.str if dtype.str[1:] in ("f2", "f4", "f8") else ""


def refusal(dtype: str) -> str:
    """Say why values of a dtype that has no stored type are never analysed.

    Parameters
    ----------
    dtype : str
        A name from `name_of` or a safetensors header.

    Returns
    -------
    str
        The reason.
    """
    if dtype == "|O":
        return "object array (pickle), never loaded"
    if dtype.startswith("|V"):
        return f"raw void dtype {dtype}"
    if dtype == "BOOL":
        return "boolean dtype BOOL"
    if dtype[0] in "IU":
        return f"integer dtype {dtype}"
    if dtype == "C64" or dtype[1:2] == "c":
        return f"complex dtype {dtype}"
    return f"unsupported dtype {dtype}"
