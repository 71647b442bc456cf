"""Columns of Python values or NumPy arrays, made into Arrow arrays of exactly the type asked for.

``pyarrow.array`` would do, but it imports pandas where that is installed (a quarter of a second of a run
that takes one), and it truncates 1.5 to 1 when the values are a list. Here a value of another kind is an
error that names its row.
"""

import operator
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_MOST_OFFSET = np.iinfo(np.int32).max


class ValueRefused(ValueError):  # noqa: N818 - an answer to the caller, never the user's last line
    """A value that the column's type cannot hold.

    Parameters
    ----------
    row : int
        Row of the value in the column.
    reason : str
        What is wrong with it.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.reason = reason


def arrow_column(values: Sequence[Any] | npt.NDArray[Any], arrow_type: pa.DataType) -> pa.Array:
    """Return the values as an Arrow array of a type; None becomes null, NaN stays NaN.

    Parameters
    ----------
    values : sequence or ndarray
        One value a row. Rows of a list column are sequences or 1-D arrays.
    arrow_type : pyarrow.DataType
        Booleans, strings, signed integers, floats, and lists of the last two; other types are left to
        pyarrow.

    Raises
    ------
    ValueRefused
        A value is not of that type, or out of its range.
    """
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueRefused(0, f"a column has one axis, not {values.ndim}")
        if _is_number(arrow_type) and _same_kind(values.dtype, arrow_type):
            return _numbers(_narrowed(values, arrow_type), None, arrow_type)
        values = list(values.tolist())
    if _is_number(arrow_type) or pa.types.is_boolean(arrow_type):
        return _scalars(values, arrow_type)
    if pa.types.is_string(arrow_type):
        return _texts(values, arrow_type)
    if pa.types.is_list(arrow_type) and _is_number(arrow_type.value_type):
        return _lists(values, arrow_type)
    return pa.array(values, type=arrow_type, from_pandas=False)


def _is_number(arrow_type: pa.DataType) -> bool:
    return bool(pa.types.is_signed_integer(arrow_type) or pa.types.is_floating(arrow_type))


def _dtype(arrow_type: pa.DataType) -> np.dtype[Any]:
    return np.dtype(f"{'i' if pa.types.is_integer(arrow_type) else 'f'}{arrow_type.bit_width // 8}")


def _same_kind(dtype: np.dtype[Any], arrow_type: pa.DataType) -> bool:
    return dtype.kind in ("iu" if pa.types.is_integer(arrow_type) else "fiu")


def _narrowed(values: npt.NDArray[Any], arrow_type: pa.DataType) -> npt.NDArray[Any]:
    dtype = _dtype(arrow_type)
    if dtype.kind == "i" and values.size:
        limits = np.iinfo(dtype)
        outside = (values < limits.min) | (values > limits.max)
        if outside.any():
            row = int(outside.argmax())
            raise ValueRefused(row, f"{values[row]} is out of range for {arrow_type}")
    return np.ascontiguousarray(values, dtype=dtype)


def _integer(value: Any) -> int:
    if isinstance(value, bool | np.bool_):
        raise TypeError
    return operator.index(value)


def _real(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    return value.encode()


def _checked(
    values: Sequence[Any], check: Callable[[Any], Any], absent: Any, arrow_type: pa.DataType
) -> list[Any]:
    """Return every value checked, with `absent` in the place of None."""
    checked = []
    for row, value in enumerate(values):
        try:
            checked.append(absent if value is None else check(value))
        except TypeError:
            raise ValueRefused(row, f"{value!r:.60} is not {arrow_type}") from None
        except UnicodeEncodeError:
            raise ValueRefused(row, f"{value!a:.60} is not Unicode text") from None
        except ValueRefused as error:  # the row is the column's, not one inside a list
            raise ValueRefused(row, error.reason) from None
    return checked


def _bitmap(bits: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(bits, bitorder="little"))


def _validity(values: Sequence[Any]) -> pa.Buffer | None:
    valid = np.fromiter((value is not None for value in values), dtype=np.bool_, count=len(values))
    return None if valid.all() else _bitmap(valid)


def _numbers(values: npt.NDArray[Any], validity: pa.Buffer | None, arrow_type: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(arrow_type, len(values), [validity, pa.py_buffer(values)])


def _scalars(values: Sequence[Any], arrow_type: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(arrow_type):
        flags = np.array(_checked(values, _flag, False, arrow_type), dtype=np.bool_)
        return pa.Array.from_buffers(arrow_type, len(values), [_validity(values), _bitmap(flags)])
    dtype = _dtype(arrow_type)
    if dtype.kind == "f":
        reals = np.array(_checked(values, _real, 0.0, arrow_type), dtype=dtype)
        return _numbers(reals, _validity(values), arrow_type)
    integers = _checked(values, _integer, 0, arrow_type)
    limits = np.iinfo(dtype)
    for row, integer in enumerate(integers):
        if not limits.min <= integer <= limits.max:
            raise ValueRefused(row, f"{integer} is out of range for {arrow_type}")
    return _numbers(np.array(integers, dtype=dtype), _validity(values), arrow_type)


def _texts(values: Sequence[Any], arrow_type: pa.DataType) -> pa.Array:
    texts = _checked(values, _text, b"", arrow_type)
    buffers = [_validity(values), _offsets([len(text) for text in texts]), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(arrow_type, len(values), buffers)


def _lists(values: Sequence[Any], arrow_type: pa.DataType) -> pa.Array:
    element = arrow_type.value_type
    empty = np.empty(0, dtype=_dtype(element))

    def entries(value: Any) -> npt.NDArray[Any]:
        try:
            array = np.asarray(value)
        except ValueError:  # ragged
            raise TypeError from None
        if array.ndim != 1 or (array.size and not _same_kind(array.dtype, element)):
            raise TypeError
        return _narrowed(array, element) if array.size else empty

    parts = _checked(values, entries, empty, arrow_type)
    child = _numbers(np.concatenate([empty, *parts]), None, element)
    buffers = [_validity(values), _offsets([len(part) for part in parts])]
    return pa.Array.from_buffers(arrow_type, len(values), buffers, children=[child])


def _offsets(lengths: Sequence[int]) -> pa.Buffer:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(np.asarray(lengths, dtype=np.int64), out=offsets[1:])
    if offsets[-1] > _MOST_OFFSET:
        raise ValueRefused(int((offsets > _MOST_OFFSET).argmax()) - 1, "the column exceeds 2^31 - 1 entries")
    return pa.py_buffer(offsets.astype(np.int32))
