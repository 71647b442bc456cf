"""Every way to decompose a level gives the same tables, whoever does the work."""

import math

import numpy as np
import pytest
from safetensors.numpy import save_file

import rct_ray
from rct_ray.engine.errors import PlanError

TOWERS = ("pca(0.95) > pca(0.9)", "gaussian(K=12) > pca(0.95) > pca(0.9)", "svd(5) > pca(0.9)")
SHARD_BYTES = 60_000


@pytest.fixture(scope="module", params=[np.float32, np.float64], ids=["float32", "float64"])
def decaying(request, tmp_path_factory):
    random = np.random.default_rng(5)
    shares = np.exp(-np.arange(120) / 9)
    rotation = np.linalg.qr(random.standard_normal((120, 120)))[0]
    rows = (random.standard_normal((900, 120)) * shares) @ rotation + 0.05
    path = tmp_path_factory.mktemp("decaying") / "decaying.safetensors"
    tensors = {"a": rows, "b": rows[:150] * 2, "noise": random.standard_normal((40, 16))}
    save_file({name: value.astype(request.param) for name, value in tensors.items()}, path)
    return path


def levels(path, out, **settings):
    run = rct_ray.run(path, out, shard_bytes=SHARD_BYTES, **{"engine": "inprocess", "workers": 2, **settings})
    rows = run.levels.to_pylist()
    return {(row["scope"], row["name"], row["level"]): row for row in rows}


def assert_equal_figures(found, reference):
    assert found.keys() == reference.keys()
    for key, row in found.items():
        other = reference[key]
        assert (row["n_keep"], row["params"]) == (other["n_keep"], other["params"])
        assert row["sse"] == pytest.approx(other["sse"], abs=1e-12 * other["sst"])
        assert row["r2_prev"] == pytest.approx(other["r2_prev"], abs=1e-12)
        if row["participation_ratio"] is not None and other["participation_ratio"] is not None:
            assert math.isclose(row["participation_ratio"], other["participation_ratio"], rel_tol=1e-9)


@pytest.mark.parametrize("metric", ["isometric", "amplitude"])
@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("pca", ["moments", "tsqr", "auto"])
def test_methods_agree_with_gathered_rows(decaying, tmp_path, pca, tower, metric):
    reference = levels(decaying, tmp_path / "gather", tower=tower, metric=metric, pca="gather")
    assert_equal_figures(levels(decaying, tmp_path / pca, tower=tower, metric=metric, pca=pca), reference)


@pytest.mark.parametrize("tower", TOWERS[:2])
def test_randomized_agrees_with_gathered_rows(decaying, tmp_path, tower):
    reference = levels(decaying, tmp_path / "gather", tower=tower, pca="gather")
    found = levels(decaying, tmp_path / "randomized", tower=tower, pca="randomized")
    assert_equal_figures(found, reference)
    assert all(row["null_r2"] is None for row in found.values() if row["level"] > 0)


def test_the_table_says_which_method_ran(decaying, tmp_path):
    double = b"F64" in decaying.read_bytes()[:400]
    for pca, said in (
        ("auto", "tsqr" if double else "moments"),
        ("gather", "gather"),
        ("randomized", "randomized"),
    ):
        found = levels(decaying, tmp_path / pca, tower="gaussian > pca > pca", pca=pca)
        methods = {
            row["pca_method"] for (scope, _, level), row in found.items() if level > 1 and scope != "model"
        }
        assert methods == {said}


def test_factors_keep_directions_that_a_scatter_loses(tmp_path):
    random = np.random.default_rng(2)
    frame = np.linalg.qr(random.standard_normal((200, 6)))[0]
    frame -= frame.mean(axis=0)
    frame = np.linalg.qr(frame)[0]
    values = np.array([1, 1e-2, 1e-4, 1e-6, 1e-8, 3e-10])
    rows = (frame * values) @ np.linalg.qr(random.standard_normal((6, 6)))[0]
    path = tmp_path / "steep.npy"
    np.save(path, rows)
    run = rct_ray.run(path, tmp_path / "steep", tower="pca(1.0)", pca="tsqr", shard_bytes=1000)
    components = run.decoder("tensor", "steep", 1, "components")
    kept = np.linalg.norm((rows - rows.mean(axis=0)) @ components.T, axis=0)
    # Beyond the root of the rounding error the scatter's eigenvectors are noise, and so is what they keep.
    assert np.allclose(kept[:4], values[:4], rtol=1e-9)


@pytest.mark.ray
@pytest.mark.parametrize("pca", ["gather", "tsqr", "randomized"])
def test_ray_gives_the_same_bytes(decaying, tmp_path, ray_cluster, pca):
    settings = {"tower": TOWERS[1], "pca": pca, "shard_bytes": SHARD_BYTES}
    rct_ray.run(decaying, tmp_path / "threads", engine="inprocess", workers=1, **settings)
    rct_ray.run(decaying, tmp_path / "actors", engine="ray", workers=2, **settings)
    for table in ("levels.parquet", "decoders.arrow"):
        assert (tmp_path / "threads" / table).read_bytes() == (tmp_path / "actors" / table).read_bytes()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pca": "gather", "driver_memory": 1000}, "--driver-memory"),
        ({"pca": "moments", "driver_memory": 1000}, "--driver-memory"),
        ({"pca": "randomized", "metric": "amplitude"}, "isometric"),
        ({"pca": "randomized", "tower": "svd(3) > pca"}, "pca as the first stage"),
    ],
)
def test_what_a_level_cannot_be(decaying, tmp_path, settings, said):
    with pytest.raises(rct_ray.PlanError, match=said) as refused:
        levels(decaying, tmp_path / "none", **{"tower": TOWERS[1], **settings})
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "none").exists()


def test_auto_turns_to_randomized_where_memory_is_short(decaying, tmp_path):
    found = levels(decaying, tmp_path / "short", tower=TOWERS[0], driver_memory=20_000)
    assert found["tensor", "a", 1]["pca_method"] == "randomized"
    assert found["tensor", "noise", 1]["pca_method"] in ("moments", "tsqr")


def test_stages_that_work_on_rows_have_them_gathered(save, tmp_path):
    path = save({"w": np.random.default_rng(0).standard_normal((64, 32))})
    run = rct_ray.run(path, tmp_path / "out", tower="svd(4) > pca(0.9) > quantize(4)")
    methods = run.levels_of(scope="tensor")["pca_method"].to_pylist()
    assert methods == [None, None, "gather", None]
    bits = run.levels_of(scope="model")["code_bits"].to_pylist()
    assert bits[:3] == [None, None, None]
    assert 0 < bits[3] <= 4 * (64 * 4 + 1)
    with pytest.raises(
        PlanError, match=r"quantize\(4\) works on rows: use --pca auto or gather, not moments"
    ):
        rct_ray.run(path, tmp_path / "two", tower="svd(4) > quantize(4)", pca="moments")
    with pytest.raises(PlanError, match=r"quantize\(4\) works on rows, and 6 copies of 64 x 32 coordinates"):
        rct_ray.run(path, tmp_path / "two", tower="svd(4) > quantize(4)", driver_memory=6 * 8 * 64 * 32 - 1)
    rct_ray.run(path, tmp_path / "two", tower="svd(4) > quantize(4)", driver_memory=6 * 8 * 64 * 32)


def test_a_rounded_code_and_an_order_are_in_the_decoders(save, tmp_path):
    W = np.random.default_rng(0).standard_normal((64, 32))
    tower = "dct(4) > gaussian(K=5, axis=rows, order=svd) > quantize(4)"
    run = rct_ray.run(save({"w": W}), tmp_path / "out", tower=tower)
    kinds = [(row["level"], row["kind"]) for row in run.decoders.to_pylist() if row["scope"] == "tensor"]
    assert kinds == [(2, "order"), (3, "offset"), (3, "step")]
    order = next(row["values"] for row in run.decoders.to_pylist() if row["kind"] == "order")
    assert sorted(order) == list(range(64))
