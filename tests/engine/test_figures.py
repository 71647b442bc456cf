"""Every figure of a run against weights that are loaded, coded and rebuilt the slow way."""

import math

import numpy as np
import pytest

import rct_ray

from . import reference


def levels(run, **wanted):
    return run.levels_of(**wanted).to_pylist()


def check_tower(rows, W, expected):
    assert [row["level"] for row in rows] == list(range(len(expected)))
    singular_values = np.linalg.svd(W, compute_uv=False)
    for row, level in zip(rows, expected, strict=True):
        assert (row["rows"], row["weights"]) == (len(W), W.size)
        assert (row["params"], row["n_components"]) == (level.params, level.kept)
        assert row["cumulative_ratio"] == pytest.approx(W.size / level.params)
        assert row["r2"] == pytest.approx(reference.r2(W, level.rebuilt), abs=1e-9)
        assert row["r2_centered"] == pytest.approx(reference.r2_centered(W, level.rebuilt), abs=1e-9)
        assert row["sst"] == pytest.approx((W**2).sum(), rel=1e-12)
        assert row["sse"] == pytest.approx(((W - level.rebuilt) ** 2).sum(), rel=1e-9)
        assert row["relative_error"] == pytest.approx(
            np.linalg.norm(W - level.rebuilt) / np.linalg.norm(W), abs=1e-9
        )
        if level.participation_ratio is None:
            assert row["participation_ratio"] is None
        else:
            assert row["participation_ratio"] == pytest.approx(level.participation_ratio, rel=1e-9)
        if row["level"]:
            assert row["incompressible"] == (level.kept >= expected[row["level"] - 1].kept)
            assert row["bits_per_weight"] == pytest.approx(reference.bits_per_weight(W, level), abs=1e-8)
            assert row["level_ratio"] == pytest.approx(expected[row["level"] - 1].params / level.params)
            if row["svd_bound_r2"] is not None:
                bound = reference.best_low_rank(singular_values, W.shape, level.params)
                assert row["svd_bound_r2"] == pytest.approx(bound, abs=1e-9)
        else:
            assert row["bits_per_weight"] == pytest.approx(0.5 * math.log2(100))
    fixed = [row["level"] for row in rows if row["fixed_point"]]
    params = [level.params for level in expected]
    assert fixed == [n for n in range(len(params) - 1) if params[n + 1] >= params[n]][:1]


@pytest.mark.parametrize("metric", ["isometric", "amplitude"])
def test_every_level_of_every_tensor_of_the_tiny_checkpoint(tiny, tiny_weights, tmp_path, metric):
    run = rct_ray.run(tiny, tmp_path / "out", metric=metric)
    assert list(dict.fromkeys(run.levels_of(scope="tensor")["name"].to_pylist())) == list(tiny_weights)
    for name, W in tiny_weights.items():
        G = reference.gaussians(W.shape[1], W.shape[1] // 32)
        rows = levels(run, scope="tensor", name=name)
        check_tower(rows, W, reference.tower(W, G, metric))
        assert rows[1]["null_r2"] == pytest.approx(reference.null_at_level_one(W, G), rel=1e-9)
        assert rows[1]["lift"] == pytest.approx(
            (rows[1]["r2"] - rows[1]["null_r2"]) / (1 - rows[1]["null_r2"]), rel=1e-9
        )


@pytest.mark.parametrize("metric", ["isometric", "amplitude"])
def test_a_width_is_the_tower_of_its_matrices_stacked_and_the_model_their_sum(
    tiny, tiny_weights, tmp_path, metric
):
    run = rct_ray.run(tiny, tmp_path / "out", metric=metric)
    summed = None
    for width in (256, 1024):
        W = np.concatenate([W for W in tiny_weights.values() if W.shape[1] == width])
        G = reference.gaussians(width, width // 32)
        rows = levels(run, scope="width", name=str(width))
        check_tower(rows, W, reference.tower(W, G, metric))
        keys = ("rows", "weights", "params", "side_bits", "sse", "sst")
        figures = np.array([[row[key] for key in keys] for row in rows], float)
        summed = figures if summed is None else summed + figures
    model = levels(run, scope="model")
    assert [[row[key] for key in keys] for row in model] == pytest.approx(summed, rel=1e-12)
    whole = np.concatenate([W.ravel() for W in tiny_weights.values()])
    for row in model:
        assert row["r2"] == pytest.approx(1 - row["sse"] / row["sst"], abs=1e-12)
        assert row["r2_centered"] == pytest.approx(
            1 - row["sse"] / ((whole - whole.mean()) ** 2).sum(), abs=1e-9
        )
        assert row["participation_ratio"] is None
        assert row["n_keep"] is None


def test_other_bases_and_thresholds(zoo, zoo_weights, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "out", tower="dct(6) > pca(0.6)", include=("a.weight", "h.weight"))
    for name in ("a.weight", "h.weight"):
        W = zoo_weights[name].astype(np.float64)
        expected = reference.tower(W, reference.cosines(48, 6), threshold=0.6, pcas=1)
        check_tower(levels(run, scope="tensor", name=name), W, expected)


def test_pca_of_the_rows_themselves(zoo, zoo_weights, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "out", tower="pca(0.9)", include=("b.weight",))
    W = zoo_weights["b.weight"].astype(np.float64)
    centred = W - W.mean(axis=0)
    U, S, V = np.linalg.svd(centred, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(S**2), 0.9 * (S**2).sum())) + 1
    (row,) = (row for row in levels(run, scope="tensor") if row["level"] == 1)
    assert (row["n_components"], row["params"]) == (kept, 170 * kept + kept * 64 + 64)
    assert row["r2"] == pytest.approx(
        reference.r2(W, U[:, :kept] * S[:kept] @ V[:kept] + W.mean(axis=0)), abs=1e-9
    )


def test_large_float32_matrices_that_are_projected_in_float32(save, tmp_path):
    rng = np.random.default_rng(5)
    W = (rng.standard_normal((4096, 256)) * 0.02 + 0.003).astype(np.float32)
    run = rct_ray.run(save({"w": W}), tmp_path / "out", svd_bound="never")
    W = W.astype(np.float64)
    G = reference.gaussians(256, 8)
    rows = levels(run, scope="tensor")
    for row, level in zip(rows, reference.tower(W, G), strict=True):
        assert row["r2"] == pytest.approx(reference.r2(W, level.rebuilt), abs=1e-9)
        assert (row["params"], row["svd_bound_r2"]) == (level.params, None)


def test_convolutions_fold_their_trailing_axes_and_experts_their_leading_ones(zoo, zoo_weights, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "out")
    for name, shape in {
        "conv.weight": (40, 48),
        "layer.experts.up": (105, 64),
        "one.weight": (1, 48),
    }.items():
        W = zoo_weights[name].astype(np.float64).reshape(shape)
        G = reference.gaussians(shape[1], max(1, round(shape[1] / 32)))
        row = levels(run, scope="tensor", name=name)[1]
        assert (row["rows"], row["width"]) == shape
        expected = reference.r2(W, reference.tower(W, G, pcas=0)[1].rebuilt)
        assert row["r2"] == pytest.approx(expected, abs=1e-9)


def test_every_tensor_has_a_row_with_what_its_values_are(zoo, zoo_weights, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "out")
    rows = {row["name"]: row for row in run.tensors.to_pylist()}
    assert sorted(rows) == sorted(zoo_weights)
    skipped = {name: row["skip_reason"] for name, row in rows.items() if row["status"] == "skipped"}
    assert skipped.keys() == {"bias", "counts"}
    assert skipped["bias"] == "1-D"
    assert "I64" in skipped["counts"]
    for name, row in rows.items():
        values = zoo_weights[name].astype(np.float64)
        assert (row["shape"], row["bytes"]) == (list(values.shape), zoo_weights[name].nbytes)
        if row["status"] == "used":
            W = values.reshape(row["rows"], row["width"])
            assert row["mean"] == pytest.approx(W.mean(), abs=1e-12)
            assert row["std"] == pytest.approx(W.std(), rel=1e-9)
            assert (row["min"], row["max"]) == (W.min(), W.max())
            assert (row["nan_count"], row["inf_count"], row["skip_reason"]) == (0, 0, None)
            assert row["norm"] == pytest.approx(np.linalg.norm(W), rel=1e-12)
            assert row["stable_rank"] == pytest.approx((W**2).sum() / np.linalg.norm(W, 2) ** 2, rel=1e-9)


def test_decoders_rebuild_the_weights(tiny, tiny_weights, tmp_path):
    run = rct_ray.run(tiny, tmp_path / "out", include=("head.weight",), tower="gaussian > pca(0.95)")
    matrices = {
        (row["scope"], row["level"], row["kind"]): np.reshape(row["values"], (row["rows"], row["columns"]))
        for row in run.decoders.to_pylist()
    }
    W = tiny_weights["head.weight"]
    Q, G = matrices["width", 1, "basis"], matrices["width", 1, "gaussians"]
    np.testing.assert_allclose(G, reference.gaussians(256, 8), atol=1e-12)
    np.testing.assert_allclose(Q @ Q.T, np.eye(8), atol=1e-12)
    V, mean = matrices["tensor", 2, "components"], matrices["tensor", 2, "mean"]
    rebuilt = ((W @ Q.T - mean) @ V.T @ V + mean) @ Q
    row = levels(run, scope="tensor")[2]
    assert row["r2"] == pytest.approx(reference.r2(W, rebuilt), abs=1e-9)
    peaks = np.abs(V).argmax(axis=1)
    assert (V[np.arange(len(V)), peaks] > 0).all()


@pytest.mark.parametrize("preset", [False, True])
def test_a_sample_is_a_choice_from_the_stacked_matrices(tiny, tiny_weights, tmp_path, preset):
    if preset:
        settings, metric = {"preset": "paper67"}, "amplitude"
    else:
        settings = {"columns": 256, "exclude": ("pos_emb*",), "sample_rows": 512, "seed": 3}
        metric = "isometric"
    run = rct_ray.run(tiny, tmp_path / "out", **settings)
    stacked = np.concatenate(
        [W for name, W in tiny_weights.items() if W.shape[1] == 256 and name != "pos_emb.weight"]
    )
    drawn = np.random.default_rng(settings.get("seed", 7)).choice(len(stacked), 512, replace=False)
    W = stacked[drawn]
    rows = levels(run, scope="width")
    check_tower(rows, W, reference.tower(W, reference.gaussians(256, 8), metric))
    kept = rows[2]["n_keep"]
    assert (rows[0]["params"], rows[1]["params"]) == (131_072, 4_096)
    assert rows[2]["params"] == 512 * kept + 8 * kept + 8
    assert sum(row["rows"] for row in levels(run, scope="tensor") if row["level"] == 0) == 512
    assert sum(row["rows"] for row in run.shards.to_pylist()) == 512


def test_a_sample_larger_than_a_width_takes_all_of_it(zoo, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "out", sample_rows=400)
    rows = {row["name"]: row["rows"] for row in levels(run, scope="width") if row["level"] == 0}
    assert rows == {"48": 400, "64": 365}


def test_a_tensor_without_a_drawn_row_says_so(zoo, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "out", sample_rows=2, columns=48)
    used = {row["name"] for row in run.tensors.to_pylist() if row["status"] == "used"}
    assert 1 <= len(used) <= 2
    reasons = {
        row["skip_reason"]
        for row in run.tensors.to_pylist()
        if row["status"] == "skipped" and row["width"] == 48 and row["name"] not in ("counts",)
    }
    assert reasons == {"none of its rows is in the sample"}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"columns": 64}, {"b.weight", "d.weight", "layer.experts.up"}),
        ({"include": ("*.weight",), "columns": 64}, {"b.weight", "d.weight"}),
        ({"include": ("a.*", "conv*")}, {"a.weight", "conv.weight"}),
        ({"include": ("*.weight",), "exclude": ("[a-c]*",)}, {"d.weight", "h.weight", "one.weight"}),
        ({"exclude": ("*.weight",)}, {"layer.experts.up"}),
        ({"include": ("A.*", "a.weight")}, {"a.weight"}),
    ],
)
def test_selection(zoo, tmp_path, settings, names):
    run = rct_ray.run(zoo, tmp_path / "out", **settings)
    rows = run.tensors.to_pylist()
    assert {row["name"] for row in rows if row["status"] == "used"} == names
    assert all(row["skip_reason"] for row in rows if row["name"] not in names)
    assert len(rows) == 9
    assert set(run.levels_of(scope="tensor")["name"].to_pylist()) == names


@pytest.fixture
def faulty(zoo_weights, save):
    weights = {name: zoo_weights[name].copy() for name in ("a.weight", "b.weight", "h.weight")}
    weights["a.weight"][3, 4] = weights["a.weight"][299, 47] = np.nan
    weights["a.weight"][150, 0] = -np.inf
    return save(weights)


@pytest.mark.parametrize("shard_bytes", [1000, 1 << 25])
def test_tensors_that_are_not_finite_are_marked_and_left_out(
    faulty, zoo_weights, save, tmp_path, shard_bytes
):
    run = rct_ray.run(faulty, tmp_path / "out", shard_bytes=shard_bytes)
    rows = {row["name"]: row for row in run.tensors.to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.weight": "nonfinite",
        "b.weight": "used",
        "h.weight": "used",
    }
    assert (rows["a.weight"]["nan_count"], rows["a.weight"]["inf_count"]) == (2, 1)
    assert rows["a.weight"]["mean"] is None
    assert "a.weight" not in run.levels_of(scope="tensor")["name"].to_pylist()
    without = save({name: zoo_weights[name] for name in ("b.weight", "h.weight")}, "without.safetensors")
    clean = rct_ray.run(without, tmp_path / "clean", shard_bytes=shard_bytes)
    for scope in ("width", "model"):
        expected = clean.levels_of(scope=scope).drop_columns("checkpoint")
        assert run.levels_of(scope=scope).drop_columns("checkpoint").equals(expected)


def test_a_run_without_a_finite_tensor_is_refused(faulty, tmp_path):
    with pytest.raises(rct_ray.NonFiniteError, match="nothing to measure"):
        rct_ray.run(faulty, tmp_path / "out", include=("a.*",))
    with pytest.raises(
        rct_ray.NonFiniteError, match=r"a\.weight in .*model\.safetensors holds 2 NaN and 1 Inf"
    ):
        rct_ray.run(faulty, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", ["isometric", "amplitude"])
def test_degenerate_weights(save, tmp_path, metric):
    arrays = {
        "zeros": np.zeros((40, 32), np.float32),
        "constant": np.full((40, 32), 3.0, np.float32),
        "narrow": np.ones((50, 1), np.float32),
        "row": np.ones((1, 32), np.float32),
    }
    run = rct_ray.run(save(arrays), tmp_path / "out", metric=metric)
    rows = levels(run, scope="tensor")
    for row in rows:
        assert 0 <= row["r2"] <= 1
    assert [row["r2"] for row in rows if row["name"] == "narrow"] == pytest.approx([1.0] * 5)
    assert [row["r2"] for row in rows if row["name"] == "zeros"] == [1.0] * 5
