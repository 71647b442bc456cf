"""Reading a run back, here and in other people's tools."""

import json

import numpy as np
import pyarrow as pa
import pytest

from rct_ray.results import DECODERS, LEVELS, SHARDS, TENSORS, ResultsError, RunWriter, open_run
from rct_ray.results.layout import MARKER


def rewrite(directory, **changes):
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(tmp_path, make, write):
    run = open_run(str(write(tmp_path / "run")), verify=True)
    assert run.path == tmp_path / "run"
    assert run.manifest["version"] == "0.1.0"
    for table, schema in [
        (run.levels, LEVELS),
        (run.tensors, TENSORS),
        (run.shards, SHARDS),
        (run.decoders, DECODERS),
    ]:
        assert table.schema.equals(schema, check_metadata=True)
        assert table.num_rows == 1
    assert run.levels.to_pylist() == [make["levels"]()]
    assert run.tensors.to_pylist() == [make["tensors"](skip_reason=None)]
    assert run.shards.to_pylist() == [make["shards"]()]
    assert run.levels is run.levels
    assert repr(run) == f"Run('{tmp_path / 'run'}', levels=1, tensors=1, shards=1, decoders=1)"


def test_parts_come_in_the_order_written(tmp_path, make):
    with RunWriter(tmp_path / "run") as writer:
        for step in (20, 10):
            label = f"step{step}"
            rows = [make["levels"](checkpoint=label, step=step, level=level) for level in (0, 1)]
            writer.write_table("levels", rows, LEVELS, part=label)
            matrix = np.full((2, 3), step)
            writer.write_table("decoders", [make["decoders"](matrix, checkpoint=label)], DECODERS, part=label)
        writer.commit({})
    run = open_run(tmp_path / "run")
    assert run.levels["step"].to_pylist() == [20, 20, 10, 10]
    assert run.levels_of(checkpoint="step10")["step"].to_pylist() == [10, 10]
    assert run.levels_of(scope="tensor", name="other").num_rows == 0
    assert run.levels_of().equals(run.levels)
    assert run.tensors.num_rows == 0
    assert run.tensors.schema.equals(TENSORS)
    wanted = ("tensor", "conv.weight", 2, "components")
    assert (run.decoder(*wanted, checkpoint="step10") == 10).all()
    with pytest.raises(ResultsError, match="2 decoders with scope='tensor'"):
        run.decoder(*wanted)
    with pytest.raises(ResultsError, match="no decoders with"):
        run.decoder(*wanted, checkpoint="step30")
    with pytest.raises(ResultsError, match="no table 'amplitudes'"):
        run.table("amplitudes")


def test_decoders_are_exact(tmp_path, make):
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal(shape) for shape in ((3, 5), (1, 4), (0, 4), (7, 1))]
    with RunWriter(tmp_path / "run") as writer:
        rows = [make["decoders"](matrix, level=level) for level, matrix in enumerate(matrices)]
        writer.write_table("decoders", rows, DECODERS)
        writer.commit({})
    run = open_run(tmp_path / "run")
    for level, matrix in enumerate(matrices):
        read = run.decoder("tensor", "conv.weight", level, "components")
        assert read.dtype == np.float64
        assert read.shape == matrix.shape
        assert (read == matrix).all()
        read += 1  # the caller's own


def test_amplitudes_have_a_schema_of_their_own(tmp_path):
    schema = pa.schema([pa.field("row", pa.int64(), nullable=False), pa.field("amplitude", pa.float32())])
    with RunWriter(tmp_path / "run") as writer:
        path = writer.write_table(
            "amplitudes", {"row": np.arange(3), "amplitude": np.ones(3)}, schema, part="a"
        )
        writer.commit({})
    assert path == tmp_path / "run" / "amplitudes" / "a.arrow"
    assert open_run(tmp_path / "run").table("amplitudes").to_pylist()[2] == {"row": 2, "amplitude": 1.0}


# ---- other people's tools

KINDS = {
    pa.string(): "text",
    pa.bool_(): "?",
    pa.int16(): "i2",
    pa.int32(): "i4",
    pa.int64(): "i8",
    pa.float64(): "f8",
}


@pytest.fixture
def tables(tmp_path, make):
    with RunWriter(tmp_path / "run") as writer:
        rows = [make["levels"](), make["levels"](level=2, participation_ratio=None, sqnr_db=np.inf)]
        writer.write_table("levels", rows, LEVELS)
        rows = [make["tensors"](), make["tensors"](shape=[], status="skipped", skip_reason="1-D", mean=None)]
        writer.write_table("tensors", rows, TENSORS)
        writer.write_table("decoders", [make["decoders"]()], DECODERS)
        writer.commit({})
    return tmp_path / "run"


def test_pandas(tables):
    import pandas as pd

    levels = pd.read_parquet(tables / "levels.parquet")
    for field in LEVELS:
        kind = KINDS[field.type]
        dtype = levels.dtypes[field.name]
        assert pd.api.types.is_string_dtype(dtype) if kind == "text" else dtype == np.dtype(kind), field.name
    assert levels["sqnr_db"].tolist() == [0.12, np.inf]
    assert levels["participation_ratio"].isna().tolist() == [False, True]
    tensors = pd.read_parquet(tables / "tensors.parquet")
    assert [list(shape) for shape in tensors["shape"]] == [[64, 3, 7, 7], []]
    assert pd.read_feather(tables / "decoders.arrow")["values"][0].tolist() == [1, 2, 3, 4, 5, 6]


def test_polars(tables):
    import polars as pl

    names = {
        "text": pl.String,
        "?": pl.Boolean,
        "i2": pl.Int16,
        "i4": pl.Int32,
        "i8": pl.Int64,
        "f8": pl.Float64,
    }
    levels = pl.read_parquet(tables / "levels.parquet")
    assert levels.schema == {field.name: names[KINDS[field.type]] for field in LEVELS}
    assert levels["participation_ratio"].to_list() == [1.5, None]
    tensors = pl.read_parquet(tables / "tensors.parquet")
    assert tensors.schema["shape"] == pl.List(pl.Int64)
    assert tensors["shape"].to_list() == [[64, 3, 7, 7], []]
    decoders = pl.read_ipc(tables / "decoders.arrow")
    assert decoders["values"].to_list() == [[1, 2, 3, 4, 5, 6]]


def test_duckdb(tables):
    import duckdb

    names = {
        "text": "VARCHAR",
        "?": "BOOLEAN",
        "i2": "SMALLINT",
        "i4": "INTEGER",
        "i8": "BIGINT",
        "f8": "DOUBLE",
    }
    described = duckdb.sql(f"describe select * from '{tables}/levels.parquet'").fetchall()
    assert [row[:2] for row in described] == [(field.name, names[KINDS[field.type]]) for field in LEVELS]
    rows = duckdb.sql(f"select level, r2, participation_ratio from '{tables}/levels.parquet'").fetchall()
    assert rows == [(1, 0.0279369, 1.5), (2, 0.0279369, None)]
    rows = duckdb.sql(f"select shape, skip_reason from '{tables}/tensors.parquet'").fetchall()
    assert rows == [([64, 3, 7, 7], None), ([], "1-D")]


# ---- what is refused


def test_unfinished_and_absent_runs(tmp_path):
    with pytest.raises(ResultsError, match=r"^no manifest\.json in .*: not a finished run$"):
        open_run(tmp_path)
    (tmp_path / MARKER).touch()
    with pytest.raises(ResultsError, match=r"^no manifest\.json in .*: an unfinished run$"):
        open_run(tmp_path)
    with pytest.raises(ResultsError, match=r"^no such directory: "):
        open_run(tmp_path / "none")
    with pytest.raises(ResultsError, match="is a file"):
        open_run(tmp_path / MARKER)


@pytest.mark.parametrize(
    "text",
    ["", "{", "\x80", "[" * 100_000, "[]", "{}", '{"format": 1}', '{"format": 1, "outputs": [{}]}', "1"],
)
def test_bad_manifests(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultsError, match=r"manifest\.json") as caught:
        open_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_formats(tmp_path, write):
    directory = write(tmp_path / "run")
    rewrite(directory, format=2)
    with pytest.raises(ResultsError, match="format 2, this version reads 1"):
        open_run(directory)


def test_missing_and_cut_files(tmp_path, write):
    directory = write(tmp_path / "run")
    levels = directory / "levels.parquet"
    data = levels.read_bytes()
    levels.write_bytes(data[:-1])
    with pytest.raises(ResultsError, match=f"levels.parquet has {len(data) - 1} bytes"):
        open_run(directory)
    levels.unlink()
    with pytest.raises(ResultsError, match=r"levels\.parquet is missing"):
        open_run(directory)


@pytest.mark.parametrize("name", ["levels.parquet", "decoders.arrow"])
def test_tampering_is_found_by_verify(tmp_path, write, name):
    directory = write(tmp_path / "run")
    data = bytearray((directory / name).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / name).write_bytes(data)
    open_run(directory)
    with pytest.raises(ResultsError, match=f"{name} is not what was written"):
        open_run(directory, verify=True)


@pytest.mark.parametrize("name", ["levels.parquet", "decoders.arrow"])
def test_garbage_of_the_right_size(tmp_path, write, name):
    directory = write(tmp_path / "run")
    path = directory / name
    path.write_bytes(bytes(path.stat().st_size))
    run = open_run(directory)
    with pytest.raises(ResultsError, match=f"cannot read .*{name}"):
        run.table(path.stem)


@pytest.mark.parametrize(
    "path",
    ["../secret.parquet", "levels/../../secret.parquet", "{tmp}/secret.parquet", "link/secret.parquet"],
)
def test_paths_stay_inside(tmp_path, write, path):
    directory = write(tmp_path / "run")
    (tmp_path / "secret.parquet").write_bytes((directory / "levels.parquet").read_bytes())
    (directory / "link").symlink_to(tmp_path)
    (directory / "levels").mkdir()
    output = json.loads((directory / "manifest.json").read_text())["outputs"][0]
    rewrite(directory, outputs=[output | {"path": path.format(tmp=tmp_path)}])
    with pytest.raises(ResultsError, match="outside the run"):
        open_run(directory)


@pytest.mark.parametrize("path", ["", ".", "\0", "./levels.parquet", "levels/../levels.parquet"])
def test_odd_paths(tmp_path, write, path):
    directory = write(tmp_path / "run")
    (directory / "levels").mkdir()
    output = json.loads((directory / "manifest.json").read_text())["outputs"][0]
    rewrite(directory, outputs=[output | {"path": path}])
    with pytest.raises(ResultsError, match="outside the run"):
        open_run(directory)


def test_outputs_listed_twice(tmp_path, write):
    directory = write(tmp_path / "run")
    output = json.loads((directory / "manifest.json").read_text())["outputs"][0]
    rewrite(directory, outputs=[output, output])
    with pytest.raises(ResultsError, match="twice"):
        open_run(directory)


def test_tables_that_are_not_what_they_are_called(tmp_path, write):
    directory = write(tmp_path / "run")
    outputs = json.loads((directory / "manifest.json").read_text())["outputs"]
    rewrite(directory, outputs=[outputs[0] | {"table": "tensors"}, outputs[1] | {"rows": 7}])
    with pytest.raises(ResultsError, match="has other columns than tensors"):
        _ = open_run(directory).tensors
    rewrite(directory, outputs=[outputs[0] | {"rows": 7}])
    with pytest.raises(ResultsError, match="has 1 rows, the manifest says 7"):
        _ = open_run(directory).levels
