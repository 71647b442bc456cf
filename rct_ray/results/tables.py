"""Rows and columns, made into a table that keeps its schema's promises.

Arrow itself does not hold a table to ``nullable=False``, and a NaN passes for a figure. Both are refused
here, before anything is written.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from rct_ray.results.columns import ValueRefused, arrow_column
from rct_ray.results.errors import ResultsError

TableLike: TypeAlias = pa.Table | Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]

# What a checkpoint holds may be NaN, so a figure about a tensor may be too. All other figures are ours.
_MAY_HOLD_NAN = frozenset({"tensors"})


def as_table(name: str, rows: TableLike, schema: pa.Schema) -> pa.Table:
    """Return rows as a table of exactly a schema, or refuse them.

    Parameters
    ----------
    name : str
        Name of the table, for what is refused and why.
    rows : pyarrow.Table, mapping of columns, or sequence of row mappings
        A nullable column may be left out; no other column may be, nor may there be one that the schema
        does not know.
    schema : pyarrow.Schema
        The schema.

    Raises
    ------
    ResultsError
        A column is missing, unknown or of another type or length, or holds a null or a NaN that it may not.
    """
    if isinstance(rows, pa.Table):
        columns: Mapping[str, Any] = _columns_of_table(name, rows)
    elif isinstance(rows, Mapping):
        columns = rows
    else:
        columns = _columns_of_rows(name, rows, schema)
    _check_names(name, columns, schema)
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ResultsError(f"{name}: columns of different lengths: {lengths}")
    length = next(iter(lengths.values()), 0)
    arrays = [
        _convert(name, field, columns[field.name]) if field.name in columns else pa.nulls(length, field.type)
        for field in schema
    ]
    for field, array in zip(schema, arrays, strict=True):
        _check_nulls(name, field, array)
        if name not in _MAY_HOLD_NAN:
            _check_nan(name, field, array)
    table = pa.Table.from_arrays(arrays, schema=schema)
    if name == "decoders":
        _check_matrices(table)
    return table


def chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """Return the contiguous arrays of a column."""
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def entries(array: pa.Array) -> np.ndarray[Any, Any]:
    """Return an array of float64 without nulls as NumPy, without a copy."""
    # Array.to_numpy would import pandas.
    buffer = array.buffers()[1]
    if buffer is None:
        return np.empty(0)
    return np.frombuffer(buffer, np.float64, count=len(array), offset=8 * array.offset)


def _columns_of_table(name: str, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    if len(set(table.column_names)) < table.num_columns:
        raise ResultsError(f"{name}: a column appears twice: {', '.join(table.column_names)}")
    return dict(zip(table.column_names, table.columns, strict=True))


def _columns_of_rows(name: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> dict[str, list[Any]]:
    rows = list(rows)
    given = dict.fromkeys(key for row in rows for key in row)
    _check_names(name, given, schema)
    return {field.name: [row.get(field.name) for row in rows] for field in schema}


def _check_names(name: str, given: Iterable[str], schema: pa.Schema) -> None:
    given = set(given)
    unknown = sorted(given.difference(schema.names))
    if unknown:
        raise ResultsError(f"{name}: no such column: {', '.join(unknown)}")
    absent = [field.name for field in schema if not field.nullable and field.name not in given]
    # Without rows there is nothing to leave out.
    if given and absent:
        raise ResultsError(f"{name}: missing column: {', '.join(absent)}")


def _convert(name: str, field: pa.Field, values: Any) -> pa.Array | pa.ChunkedArray:
    try:
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            return arrow_column(values, field.type)
        if values.type.equals(field.type):
            return values
        if _kind(values.type) not in (_kind(field.type), "null"):
            raise ResultsError(f"{name}: column {field.name!r} is {values.type}, not {field.type}")
        return values.cast(field.type)
    except ValueRefused as error:
        raise ResultsError(f"{name}: column {field.name!r}, {error}") from error
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ResultsError(f"{name}: column {field.name!r} is not {field.type}: {error}") from error


def _kind(arrow_type: pa.DataType) -> str:
    """Return what a type holds: Arrow would otherwise read "12" as 12, and True as 1."""
    if pa.types.is_dictionary(arrow_type):
        return _kind(arrow_type.value_type)
    if pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type):
        return "number"
    if (
        pa.types.is_string(arrow_type)
        or pa.types.is_large_string(arrow_type)
        or pa.types.is_string_view(arrow_type)
    ):
        return "text"
    if (
        pa.types.is_list(arrow_type)
        or pa.types.is_large_list(arrow_type)
        or pa.types.is_fixed_size_list(arrow_type)
    ):
        return f"list of {_kind(arrow_type.value_type)}"
    return str(arrow_type)


def _check_nulls(name: str, field: pa.Field, array: pa.Array | pa.ChunkedArray) -> None:
    if array.null_count and not field.nullable:
        row = array.is_null().to_pylist().index(True)
        raise ResultsError(f"{name}: column {field.name!r}, row {row}: null where a value must be")
    if pa.types.is_list(field.type) and not field.type.value_field.nullable:
        for chunk in chunks(array):
            if chunk.flatten().null_count:
                raise ResultsError(f"{name}: column {field.name!r}: null inside a list")


def _check_nan(name: str, field: pa.Field, array: pa.Array | pa.ChunkedArray) -> None:
    """Refuse NaN among float64 values, or in lists of them."""
    is_list = pa.types.is_list(field.type)
    if not pa.types.is_float64(field.type.value_type if is_list else field.type):
        return
    first = 0
    for chunk in chunks(array):
        absent = np.isnan(entries(chunk.flatten() if is_list else chunk))
        if absent.any() and chunk.null_count and not is_list:
            # What lies under a null is nobody's figure.
            absent &= np.array(chunk.is_valid().to_pylist(), dtype=np.bool_)
        if absent.any():
            where = "a list" if is_list else f"row {first + int(absent.argmax())}"
            hint = "; a figure that is not known is null" if field.nullable else ""
            raise ResultsError(f"{name}: column {field.name!r}, {where}: NaN{hint}")
        first += len(chunk)


def _check_matrices(table: pa.Table) -> None:
    heights, widths = table["rows"].to_pylist(), table["columns"].to_pylist()
    lengths = [
        stop - start
        for chunk in table["values"].chunks
        for start, stop in itertools.pairwise(chunk.offsets.to_pylist())
    ]
    for row, (height, width, length) in enumerate(zip(heights, widths, lengths, strict=True)):
        if height < 0 or width < 0 or height * width != length:
            raise ResultsError(f"decoders: row {row}: {height} x {width} matrix of {length} values")
