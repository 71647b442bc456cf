"""The tables are an interface: a changed name, type or nullability must be meant."""

import pyarrow as pa
import pytest

from rct_ray.results import DECODERS, LEVELS, SHARDS, TENSORS

PINNED = {
    "levels": """
        checkpoint string, step int64?, scope string, name string, width int32, level int16, stage string,
        rows int64, weights int64, n_components int32, params int64, side_bits double, level_ratio double,
        cumulative_ratio double, participation_ratio double?, n_keep int32?, threshold double?,
        r2_prev double, r2 double, r2_centered double, null_r2 double?, null_participation_ratio double?,
        lift double?, svd_bound_r2 double?, sse double, sst double, sqnr_db double, relative_error double,
        pca_method string?, bits_per_weight double, fixed_point bool, incompressible bool,
        code_bits double?, converged double?""",
    "tensors": """
        checkpoint string, name string, file string, dtype string, shape list<element: int64 not null>,
        bytes int64, rows int64, width int32, mean double?, std double?, min double?, max double?,
        nan_count int64?, inf_count int64?, norm double?, stable_rank double?, status string,
        skip_reason string?""",
    "shards": """
        checkpoint string, shard int32, tensor string, row_start int64, row_stop int64, rows int64,
        bytes int64, seconds_read double, seconds_encode double, seconds double, worker string,
        attempt int16""",
    "decoders": """
        checkpoint string, scope string, name string, width int32, level int16, stage string, kind string,
        rows int32, columns int32, values list<element: double not null>""",
}
SCHEMAS = {"levels": LEVELS, "tensors": TENSORS, "shards": SHARDS, "decoders": DECODERS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_columns_are_as_pinned(name):
    columns = [f"{field.name} {field.type}{'?' if field.nullable else ''}" for field in SCHEMAS[name]]
    assert columns == [column.strip() for column in PINNED[name].split(",")]


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_column_says_what_it_means(schema):
    assert schema.metadata == {b"rct_ray.schema": b"1"}
    for field in schema:
        assert set(field.metadata) == {b"description"}
        assert field.metadata[b"description"].decode().endswith(".")


def test_no_unsigned_or_narrow_floats():
    types = {
        field.type for schema in SCHEMAS.values() for field in schema if not pa.types.is_list(field.type)
    }
    assert types == {pa.string(), pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float64()}
