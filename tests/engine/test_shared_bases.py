"""One basis for all matrices of a width: `svd(K, share=width)`."""

import math

import numpy as np
import pytest

import rct_ray
from rct_ray.engine.errors import PlanError

TOWER = "svd(3, share=width) > pca(0.9)"


@pytest.fixture
def weights():
    """Three matrices whose rows lean the same way, and one of another width."""
    rng = np.random.default_rng(2)
    common = rng.standard_normal((3, 24))
    matrices = {
        name: 4 * rng.standard_normal((rows, 3)) @ common + rng.standard_normal((rows, 24)) + 0.5
        for name, rows in (("a", 50), ("b", 31), ("c", 7))
    }
    return {**matrices, "other": rng.standard_normal((20, 16))}


def levels(run, **wanted):
    return run.levels_of(**wanted).to_pylist()


def leading(W, count=3):
    return np.linalg.svd(W, full_matrices=False)[2][:count]


def test_every_matrix_is_coded_in_the_basis_of_all_and_pays_by_its_rows(weights, save, tmp_path):
    run = rct_ray.run(save(weights), tmp_path / "out", tower=TOWER)
    same = [weights[name] for name in "abc"]
    V = leading(np.vstack(same))
    for name, W in zip("abc", same, strict=True):
        first, second = levels(run, scope="tensor", name=name)[1:]
        assert first["r2"] == pytest.approx(np.sum((W @ V.T) ** 2) / np.sum(W**2), abs=1e-12)
        assert first["params"] == len(W) * 3 + math.ceil(3 * 24 * len(W) / 88)
        codes = W @ V.T
        mean, kept = codes.mean(axis=0), second["n_keep"]
        U = leading(codes - mean, kept)
        rebuilt = ((codes - mean) @ U.T @ U + mean) @ V
        assert second["sse"] == pytest.approx(np.sum((W - rebuilt) ** 2), rel=1e-10)
        assert second["params"] == len(W) * kept + math.ceil(72 * len(W) / 88) + kept * 3 + 3
    assert {row["name"] for row in levels(run, scope="tensor")} == set(weights)


def test_a_width_as_a_whole_is_as_with_a_basis_of_its_own(weights, save, tmp_path):
    path = save(weights)
    shared = levels(rct_ray.run(path, tmp_path / "shared", tower=TOWER), scope="width")
    alone = levels(rct_ray.run(path, tmp_path / "alone", tower="svd(3) > pca(0.9)"), scope="width")
    assert len(shared) == len(alone) == 6
    for one, other in zip(shared, alone, strict=True):
        assert one["params"] == other["params"]
        for figure in ("sse", "null_r2", "svd_bound_r2"):
            assert one[figure] == pytest.approx(other[figure], rel=1e-9)


def test_the_spectra_of_tensors_are_known_and_all_have_their_figures(weights, save, tmp_path):
    run = rct_ray.run(save(weights), tmp_path / "out", tower=TOWER)
    rows = {row["name"]: row for row in run.tensors.to_pylist()}
    for name, W in weights.items():
        assert rows[name]["stable_rank"] == pytest.approx(np.sum(W**2) / np.linalg.norm(W, 2) ** 2)
    assert sorted(run.shards["tensor"].to_pylist()) == sorted(weights)


def test_structureless_weights_have_no_lift(save, tmp_path):
    rng = np.random.default_rng(4)
    noise = {f"w{index}": rng.standard_normal((60, 24)) for index in range(30)}
    run = rct_ray.run(save(noise), tmp_path / "out", tower="svd(3, share=width)")
    lifts = np.array([row["lift"] for row in levels(run, scope="tensor") if row["level"] == 1])
    assert abs(lifts.mean()) < 4 * lifts.std() / np.sqrt(len(lifts))
    own = rct_ray.run(save(noise), tmp_path / "own", tower="svd(3)")
    kept = [row["null_r2"] for row in levels(own, scope="tensor") if row["level"] == 1]
    assert min(kept) > 0.2  # a basis fitted to 60 rows of noise; one for 1,800 keeps about 3/24
    null = [row["null_r2"] for row in levels(run, scope="tensor") if row["level"] == 1]
    V = leading(np.vstack(list(noise.values())))
    kept = [np.sum((W @ V.T) ** 2) / np.sum(W**2) for W in noise.values()]
    assert np.mean(null) == pytest.approx(np.mean(kept), abs=0.01)


def test_a_tensor_that_is_not_finite_has_no_say(weights, save, tmp_path):
    broken = {**weights, "b": weights["b"].copy()}
    broken["b"][4, 5] = np.nan
    run = rct_ray.run(save(broken), tmp_path / "out", tower=TOWER)
    V = leading(np.vstack([weights["a"], weights["c"]]))
    row = levels(run, scope="tensor", name="a")[1]
    assert row["r2"] == pytest.approx(
        np.sum((weights["a"] @ V.T) ** 2) / np.sum(weights["a"] ** 2), abs=1e-12
    )
    assert {row["name"]: row["status"] for row in run.tensors.to_pylist()}["b"] == "nonfinite"


def test_moments_that_wait_have_to_fit(weights, save, tmp_path):
    path = save(weights)
    rct_ray.run(path, tmp_path / "fits", tower=TOWER, driver_memory=4 * 8 * 24 * 24)
    many = {f"w{index}": np.ones((2, 24)) for index in range(5)}
    with pytest.raises(PlanError, match=r"24 x 24 moments of 5 tensors.*--driver-memory is"):
        rct_ray.run(
            save(many, "many.safetensors"), tmp_path / "out", tower=TOWER, driver_memory=4 * 8 * 24 * 24
        )
    assert not (tmp_path / "out").exists()
