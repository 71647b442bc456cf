"""The frontier of a checkpoint, from its file to the table, the terminal and the picture."""

import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import rct_ray
from rct_ray.results import FRONTIER

PROJECTION = "blocks.0.attn.c_proj.weight"
# Two tensors of two widths, quick to sweep.
QUICK = [
    "--basis",
    "dct",
    "--basis",
    "svd",
    "--share",
    "1/32",
    "--share",
    "0.5",
    "--bits",
    "4",
    "--threshold",
    "0.9",
]
QUICK += ["--include", PROJECTION, "--include", "pos_emb.weight"]


def refused(outcome, *words):
    status, out, error = outcome
    assert (status, out) == (2, ""), error
    assert error.startswith("rct-ray: ")
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error, error


def rows_of(table, **wanted):
    return [row for row in table.to_pylist() if all(row[key] == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def table(tiny):
    config = rct_ray.RunConfig(include=("blocks.0.*",))
    return rct_ray.frontier(tiny, ("dct", "svd"), config, workers=2)


def test_the_table_is_of_its_schema(table):
    assert table.schema.equals(FRONTIER, check_metadata=True)
    assert set(table["checkpoint"].to_pylist()) == {"tiny-step02500"}
    assert set(table["step"].to_pylist()) == {2500}
    assert set(table["kind"].to_pylist()) == {"code", "null", "reference"}


def test_every_tensor_and_the_model_have_every_point(table, tiny_weights):
    names = [name for name in tiny_weights if name.startswith("blocks.0.")]
    # 2 bases, 7 shares with 5 kinds of rounding and, below 1, 2 thresholds more; nulls without; references.
    points = 2 * (7 * 5 + 6 * 2 * 5) + 2 * 7 * 5 + 4 + 19
    assert len(rows_of(table, scope="model")) == points
    for name in names:
        (width,) = {row["width"] for row in rows_of(table, name=name)}
        assert width == tiny_weights[name].shape[1]
        assert len(rows_of(table, name=name)) == points
    assert table.num_rows == (len(names) + 1) * points


def test_the_model_is_its_tensors_added_up(table, tiny_weights):
    weights = [W for name, W in tiny_weights.items() if name.startswith("blocks.0.")]
    setting = {"kind": "code", "curve": "svd", "share": 1 / 32, "threshold": None, "bits": None}
    (model,) = rows_of(table, scope="model", **setting)
    singular = [np.linalg.svd(W, compute_uv=False) for W in weights]
    ranks = [W.shape[1] // 32 for W in weights]
    sst = sum(np.sum(W**2) for W in weights)
    lost = sum(np.sum(s[rank:] ** 2) for s, rank in zip(singular, ranks, strict=True))
    taken = sum(16 * rank * sum(W.shape) for W, rank in zip(weights, ranks, strict=True))
    assert (model["weights"], model["width"]) == (sum(W.size for W in weights), 0)
    assert model["sst"] == pytest.approx(sst, rel=1e-12)
    assert model["r2"] == pytest.approx(1 - lost / sst, abs=1e-9)
    assert model["bits_per_weight"] == pytest.approx(taken / model["weights"], rel=1e-12)


@pytest.mark.parametrize("scope", ["model", PROJECTION])
def test_the_front_rises_and_nothing_swept_lies_above_it(table, scope):
    codes = rows_of(table, name=scope, kind="code")
    best = sorted((row["bits_per_weight"], row["r2"]) for row in codes if row["front"])
    assert len(best) > 10
    assert all(np.diff([r2 for _, r2 in best]) >= 0)
    for row in codes:
        assert any(bits <= row["bits_per_weight"] and r2 >= row["r2"] for bits, r2 in best)
    assert not any(row["front"] for row in rows_of(table, name=scope) if row["kind"] != "code")


def test_figures_are_equal_to_the_bit_for_any_number_of_workers(tiny):
    config = rct_ray.RunConfig(include=(PROJECTION, "blocks.0.mlp.0.weight", "pos_emb.weight"))
    bases = ("gaussian", "gaussian(order=assign)", "svd")
    one, two = (
        rct_ray.frontier(tiny, bases, config, shares=[1 / 16], thresholds=[0.9], workers=workers)
        for workers in (1, 2)
    )
    assert one.equals(two)
    (ordered,) = rows_of(
        one, scope="model", kind="code", curve="gaussian(order=assign)", bits=None, threshold=None
    )
    (plain,) = rows_of(one, scope="model", kind="code", curve="gaussian", bits=None, threshold=None)
    (null,) = rows_of(one, scope="model", kind="null", curve="gaussian(order=assign)", bits=None)
    assert ordered["r2"] > 1.5 * null["r2"] > 1.5 * plain["r2"]


def test_options_say_what_is_swept(tiny):
    config = rct_ray.RunConfig(include=("pos_emb.weight",))
    table = rct_ray.frontier(tiny, ["dct", "dct"], config, shares=[0.25, 1], thresholds=[], bits=[5])
    swept = {
        (row["share"], row["threshold"], row["bits"]) for row in rows_of(table, scope="tensor", kind="code")
    }
    assert swept == {(0.25, None, None), (0.25, None, 5), (1.0, None, None), (1.0, None, 5)}


def test_what_is_printed(cli, tiny):
    status, out, error = cli("frontier", tiny, *QUICK)
    assert (status, error) == (0, "")
    assert "tiny-step02500, 131,072 weights: what is kept for so many bits a weight" in out
    for heading in (
        "at most",
        "truncated SVD",
        "shuffled",
        "rounded to nearest, groups of 128",
        "1/32",
        "1/2",
    ):
        assert heading in out
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines if line and line[0].startswith("int")] == [
        "int8",
        "int4",
        "int3",
        "int2",
    ]
    (dct,) = (line for line in lines if line[:1] == ["dct"] and "(0.031)" in line)
    assert dct[3:] == ["0.4", "(0.5)"] or dct[4].startswith("(0.5") or dct[4].startswith("(0.49")


def test_a_basis_that_is_tried_at_fewer_k_is_printed(cli, tiny):
    status, out, _ = cli("frontier", tiny, "--basis", "gaussian(order=svd)", "--basis", "svd",
                         "--bits", "2", "--include", "pos_emb.weight")  # fmt: skip
    assert status == 0
    assert "gaussian(order=svd)" in out


def test_json_and_files_hold_the_same_table(cli, tiny, tmp_path):
    path, picture = tmp_path / "points.parquet", tmp_path / "points.svg"
    status, out, error = cli("frontier", tiny, *QUICK, "--json", "--out", path, "--plot", picture)
    assert (status, error) == (0, "")
    printed = json.loads(out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    written = pq.read_table(path)
    assert written.schema.equals(FRONTIER, check_metadata=True)
    assert written.to_pylist() == printed
    assert pd.read_parquet(path).shape == pl.read_parquet(path).shape == written.shape
    query = f"select max(r2) from '{path}' where kind = 'code'"
    assert duckdb.sql(query).fetchall()[0][0] == max(row["r2"] for row in printed if row["kind"] == "code")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["points.parquet", "points.svg"]


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("PDF", b"%PDF")])
def test_pictures(cli, tiny, tmp_path, suffix, start):
    path = tmp_path / f"frontier.{suffix}"
    pictures = []
    for _ in range(2):
        assert cli("frontier", tiny, *QUICK, "--plot", path)[0] == 0
        pictures.append(path.read_bytes())
    assert pictures[0].startswith(start)
    assert pictures[0] == pictures[1]
    if suffix == "svg":
        assert len(pictures[0]) < 150_000


def test_a_tensor_that_is_not_finite_is_left_out_and_named(cli, save):
    rng = np.random.default_rng(0)
    bad = rng.standard_normal((8, 32)).astype(np.float32)
    bad[3, 4], bad[5, 6] = np.nan, np.inf
    fine = rng.standard_normal((40, 32)).astype(np.float32)
    path = save({"bad": bad, "good": fine, "huge": np.full((4, 32), 1e200)})
    status, out, error = cli("frontier", path, "--basis", "svd", "--json")
    assert (status, error) == (
        0,
        "huge has squares that overflow float64: left out\nbad holds 2 NaN or Inf: left out\n",
    )
    rows = json.loads(out)
    assert {row["name"] for row in rows} == {"good", "model"}
    assert {row["weights"] for row in rows} == {40 * 32}
    refused(cli("frontier", save({"bad": bad}), "--basis", "svd"), "no selected tensor", "finite")


def test_names_do_not_drive_the_terminal_or_the_picture(cli, save, tmp_path):
    bad = np.full((4, 32), np.nan)
    path = save({"bad\x1b[31m": bad, "good": np.eye(32)}, "[red]$\\frac{$.safetensors")
    status, out, error = cli("frontier", path, "--basis", "svd", "--plot", tmp_path / "p.svg")
    assert (status, error) == (0, "bad\\x1b[31m holds 128 NaN or Inf: left out\n")
    assert "[red]$\\frac{$, 1,024 weights" in out
    assert (tmp_path / "p.svg").exists()


@pytest.mark.parametrize("rows", [np.zeros((5, 40)), np.ones((1, 1)), np.full((3, 8), 1e-300)])
def test_weights_with_nothing_to_tell(cli, save, tmp_path, rows):
    path = save({"w": rows})
    status, out, error = cli("frontier", path, "--plot", tmp_path / "p.svg")
    assert (status, error) == (0, "")
    assert "model" not in error
    assert "nan" not in out


def test_bad_input_is_one_line(cli, tiny, tmp_path):
    refused(cli("frontier", tmp_path / "absent.safetensors"), "absent.safetensors")
    refused(cli("frontier", tiny, "--include", "nothing*"), "no tensor selected", "nothing*")
    refused(cli("frontier", tiny, "--basis", "wavelet"), "unknown stage 'wavelet'")
    refused(cli("frontier", tiny, "--basis", "gaussian(K=9999)"), "a frontier sweeps K itself")
    refused(cli("frontier", tiny, "--basis", "svd(K=4, share=width)"), "give neither K nor share")
    for text in ("dct > pca", "pca", "quantize(4)", "gaussian(axis=rows)", "gaussian(fit=free)"):
        refused(cli("frontier", tiny, "--basis", text), f"one --basis each, and not '{text}'")
    refused(cli("frontier", tiny, "--share", "1.5"), "share must be above 0 and at most 1, not 1.5")
    refused(cli("frontier", tiny, "--share", "1/0"), "'1/0' is no share")
    refused(cli("frontier", tiny, "--share", "nan"), "'nan' is no share")
    refused(cli("frontier", tiny, "--share", "1", "--basis", "gaussian"), "give a share below 1")
    refused(cli("frontier", tiny, "--bits", "17"), "bits must be above 0 and at most 16, not 17")
    refused(cli("frontier", tiny, "--threshold", "nan"), "threshold must be above 0")
    refused(cli("frontier", tiny, "--workers", "0"), "workers must be at least 1, not 0")
    refused(
        cli("frontier", tiny, "--driver-memory", "1MB"), "a frontier holds whole tensors", "--driver-memory"
    )
    refused(cli("frontier", tiny, "--plot", tmp_path / "p.gif"), "p.gif: a picture ends in .svg, .png, .pdf")
    refused(
        cli("frontier", tiny, "--plot", tmp_path / "no" / "p.svg"), "p.svg: can't be written", "no directory"
    )
    refused(cli("frontier", tiny, "--out", tmp_path / "no" / "p.parquet"), "can't be written", "no directory")
    refused(cli("frontier", tiny, "--out", tmp_path), "can't be written", "is a directory")
    assert not list(tmp_path.iterdir())
