"""What a table may hold, and what it may not."""

import math

import numpy as np
import pyarrow as pa
import pytest

from rct_ray.results import DECODERS, LEVELS, TABLES, TENSORS, ResultsError
from rct_ray.results.columns import arrow_column
from rct_ray.results.tables import as_table


def columns_of(rows):
    return {key: [row[key] for row in rows] for key in rows[0]}


@pytest.mark.parametrize("name", TABLES)
def test_rows_columns_and_tables_agree(make, name):
    rows = [make[name](), make[name]()]
    table = as_table(name, rows, TABLES[name])
    table.validate(full=True)
    assert table.schema.equals(TABLES[name], check_metadata=True)
    assert as_table(name, columns_of(rows), TABLES[name]).equals(table)
    assert as_table(name, table, TABLES[name]).equals(table)
    assert as_table(name, pa.Table.from_pylist(table.to_pylist()), TABLES[name]).equals(table)


@pytest.mark.parametrize("rows", [[], {}, TENSORS.empty_table()], ids=["rows", "columns", "table"])
def test_empty_table(rows):
    table = as_table("tensors", rows, TENSORS)
    assert table.num_rows == 0
    assert table.schema.equals(TENSORS, check_metadata=True)


@pytest.mark.parametrize("column", [field.name for field in LEVELS if not field.nullable])
@pytest.mark.parametrize("form", ["rows", "columns", "table"])
def test_null_refused_where_a_value_must_be(make, column, form):
    rows = [make["levels"](), make["levels"](**{column: None})]
    data = {"rows": rows, "columns": columns_of(rows), "table": pa.Table.from_pylist(rows)}[form]
    with pytest.raises(ResultsError, match=rf"levels: column '{column}', row 1: null"):
        as_table("levels", data, LEVELS)


@pytest.mark.parametrize("column", [field.name for field in LEVELS if field.nullable])
def test_null_allowed_where_unknown(make, column):
    table = as_table("levels", [make["levels"](**{column: None}), make["levels"]()], LEVELS)
    assert table[column].null_count == 1
    row = make["levels"]()
    del row[column]
    assert as_table("levels", [row], LEVELS)[column].null_count == 1


@pytest.mark.parametrize("column", [field.name for field in LEVELS if pa.types.is_float64(field.type)])
@pytest.mark.parametrize("form", ["rows", "columns", "table", "slice"])
def test_nan_refused(make, column, form):
    rows = [make["levels"](), make["levels"](**{column: math.nan})]
    table = pa.Table.from_pylist(rows)
    data = {
        "rows": rows,
        "columns": columns_of(rows) | {column: np.array([0.5, np.nan])},
        "table": table,
        "slice": pa.concat_tables([table, table]).slice(2),
    }[form]
    with pytest.raises(ResultsError, match=rf"levels: column '{column}', row 1: NaN"):
        as_table("levels", data, LEVELS)


def test_inf_allowed(make):
    table = as_table("levels", [make["levels"](sqnr_db=math.inf)], LEVELS)
    assert table["sqnr_db"].to_pylist() == [math.inf]


def test_nan_under_a_null_is_nobodys_figure(make):
    table = as_table("levels", [make["levels"]()] * 2, LEVELS)
    masked = pa.array(np.array([0.5, np.nan]), mask=np.array([False, True]))
    table = table.set_column(table.schema.get_field_index("lift"), "lift", masked)
    assert as_table("levels", table, LEVELS)["lift"].to_pylist() == [0.5, None]


def test_a_tensor_may_hold_nan(make):
    row = make["tensors"](status="nonfinite", mean=math.nan, nan_count=3)
    assert math.isnan(as_table("tensors", [row], TENSORS)["mean"][0].as_py())


def test_nan_in_a_matrix_refused(make):
    with pytest.raises(ResultsError, match="decoders: column 'values', a list: NaN"):
        as_table("decoders", [make["decoders"]([[1.0, math.nan]])], DECODERS)


@pytest.mark.parametrize("changes", [{"rows": 3}, {"columns": -3, "rows": -2}])
def test_matrix_of_another_size_refused(make, changes):
    with pytest.raises(ResultsError, match=r"decoders: row 1: .* matrix of 6 values"):
        as_table("decoders", [make["decoders"](), make["decoders"](**changes)], DECODERS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 1.5}, "column 'width', row 0: 1.5 is not int32"),
        ({"width": 2**40}, "column 'width', row 0: 1099511627776 is out of range for int32"),
        ({"rows": 2**70}, "out of range for int64"),
        ({"level": True}, "True is not int16"),
        ({"r2": "0.5"}, "'0.5' is not double"),
        ({"r2": True}, "True is not double"),
        ({"r2": 10**400}, "column 'r2' is not double"),
        ({"name": 7}, "7 is not string"),
        ({"name": b"w"}, "b'w' is not string"),
        ({"name": "\udc80"}, "is not Unicode text"),
        ({"fixed_point": 1}, "1 is not bool"),
        ({"r2x": 1.0}, "no such column: r2x"),
    ],
)
def test_wrong_values_refused(make, changes, message):
    with pytest.raises(ResultsError, match=message):
        as_table("levels", [make["levels"](**changes)], LEVELS)


@pytest.mark.parametrize("shape", [[1.5], [[1]], [1, None], [[1], [1, 2]], ["1"], 3, "ab", [2**64]])
def test_wrong_shapes_refused(make, shape):
    with pytest.raises(ResultsError, match="tensors: column 'shape', row 1"):
        as_table("tensors", [make["tensors"](), make["tensors"](shape=shape)], TENSORS)


@pytest.mark.parametrize(
    ("column", "values"),
    [("width", ["256"]), ("level", [True]), ("name", [1]), ("width", [2**40]), ("width", [1.5])],
)
def test_tables_are_not_bent_to_fit(make, column, values):
    table = as_table("levels", [make["levels"]()], LEVELS)
    bent = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
    with pytest.raises(ResultsError, match=f"column '{column}'"):
        as_table("levels", bent, LEVELS)


def test_null_inside_a_list_of_a_table_refused(make):
    table = as_table("tensors", [make["tensors"]()], TENSORS)
    bent = table.set_column(4, "shape", pa.array([[1, None]], pa.list_(pa.int64())))
    with pytest.raises(ResultsError, match="null inside a list"):
        as_table("tensors", bent, TENSORS)


def test_columns_must_be_there_and_even(make):
    columns = columns_of([make["shards"]()])
    with pytest.raises(ResultsError, match="missing column: worker"):
        as_table("shards", {k: v for k, v in columns.items() if k != "worker"}, TABLES["shards"])
    with pytest.raises(ResultsError, match="different lengths"):
        as_table("shards", columns | {"worker": ["0", "1"]}, TABLES["shards"])


VALUES = [
    (pa.int16(), [1, None, -(2**15), np.int64(7)]),
    (pa.int64(), [2**63 - 1, -(2**63), None]),
    (pa.float64(), [1, 0.1, None, -math.inf, np.float32(0.5)]),
    (pa.float32(), [0.1, None]),
    (pa.bool_(), [True, None, np.False_] * 11),
    (pa.string(), ["", "é", None, "重み", np.str_("w")]),
    (pa.list_(pa.int64()), [[], None, (3, 4), np.array([5], np.int32), np.array([7], np.uint8)]),
    (pa.list_(pa.float64()), [[1, 0.5], np.zeros(3), [], None]),
]


@pytest.mark.parametrize(("arrow_type", "values"), VALUES, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("count", [0, 1, None])
def test_columns_equal_pyarrows_own(arrow_type, values, count):
    array = arrow_column(values[:count], arrow_type)
    array.validate(full=True)
    assert array.equals(pa.array(values[:count], arrow_type))


@pytest.mark.parametrize(
    ("arrow_type", "values"),
    [
        (pa.int16(), np.arange(5)),
        (pa.int64(), np.arange(5, dtype=np.uint64)),
        (pa.float64(), np.arange(10.0)[::2]),
        (pa.float64(), np.arange(5, dtype=">f4")),
        (pa.bool_(), np.array([True, False, True])),
        (pa.string(), np.array(["a", "bb"])),
        (pa.int64(), np.array([1, None], dtype=object)),
    ],
)
def test_numpy_columns(arrow_type, values):
    array = arrow_column(values, arrow_type)
    array.validate(full=True)
    assert array.to_pylist() == values.tolist()
