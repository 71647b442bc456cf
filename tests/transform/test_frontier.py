"""Points of a frontier: against rebuilt weights, NumPy's SVD and plain loops; nulls, fronts, odd matrices."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from rct_ray.transform.frontier import Grid, Point, Setting, add_up, front, frontier_points
from rct_ray.transform.frontier_grid import SHARES, matrix_bytes
from rct_ray.transform.frontier_references import to_nearest
from rct_ray.transform.moments import coordinate_moments
from rct_ray.transform.placed import placed_steps
from rct_ray.transform.quantize import code_bits, quantize
from rct_ray.transform.tower_language import parse_tower

FIXED = ["gaussian", "dct", "haar", "random"]
ORDERED = ["gaussian(order=svd)", "gaussian(order=assign)", "gaussian(order=assign, signs=no)"]


def stages(*texts):
    return tuple(parse_tower(text)[0] for text in texts)


def points_of(W, grid, seed=(0,)):
    listed = list(frontier_points(W, grid, seed))
    points = {point.setting: point for point in listed}
    assert len(points) == len(listed), "a setting has more than one point"
    return points


@pytest.fixture(scope="module")
def weights(trained):
    """Rows of a trained matrix that are not about zero."""
    return trained["blocks.0.mlp.0.weight"][:180, 64:128].astype(np.float64) + 0.01


def frame_of(W, text, count, slow_functions):
    """Orthonormal functions as rows, parameters charged, bits charged beside."""
    width = W.shape[1]
    if text == "svd":
        return np.linalg.svd(W, full_matrices=True)[2][:count], count * width, 0.0
    if text in FIXED:
        return np.linalg.qr(slow_functions[text](width, count).T)[0].T, 0, 0.0
    stage = replace(stages(text)[0], n_components=count)
    (step,) = placed_steps([coordinate_moments(W)], stage, "isometric")
    signs = width if "assign" in text and "signs" not in text else 0
    return step.decoder, 0, math.log2(math.factorial(width)) + signs


def rebuilt(W, functions, threshold, bits):
    """Sum of squared errors of the weights coded, rounded and decoded; numbers of the code; bits of it."""
    codes = W @ functions.T
    numbers, mean, components = 0, np.zeros(codes.shape[1]), np.eye(codes.shape[1])
    if threshold is not None:
        fitted = PCA(svd_solver="full").fit(codes)
        shares = np.cumsum(fitted.singular_values_**2) / np.sum(fitted.singular_values_**2)
        kept = int(np.argmax(shares >= threshold)) + 1
        mean, components = fitted.mean_, fitted.components_[:kept]
        numbers = components.size + mean.size
    scores = (codes - mean) @ components.T
    taken = 16.0 * scores.size
    if bits is not None:
        quantized = quantize(scores, bits)
        scores = quantized.values()
        taken = code_bits(quantized) + 16 * 2 * scores.shape[1]
    decoded = (scores @ components + mean) @ functions
    return np.sum((W - decoded) ** 2), numbers, taken


@pytest.mark.parametrize("text", [*FIXED, "svd", *ORDERED])
def test_every_point_is_what_rebuilt_weights_say(weights, text, slow_functions):
    grid = Grid(stages(text), thresholds=(None, 0.9, 0.6), searched=(1 / 16, 1 / 8))
    found = points_of(weights, grid)
    (stage,) = grid.stages
    energy = np.sum(weights**2)
    checked = 0
    for share in grid.shares_of(stage):
        functions, charge, side = frame_of(weights, text, max(1, round(64 * share)), slow_functions)
        for threshold in grid.thresholds if share < 1 else [None]:
            for bits in grid.bits:
                point = found.pop(Setting("code", stage.spec, share, threshold, bits))
                sse, numbers, taken = rebuilt(weights, functions, threshold, bits)
                where = f"{text}, share {share}, threshold {threshold}, bits {bits}"
                # A value that lies halfway may go either way: the loss is the same, the code a few bits longer.
                assert point.sse == pytest.approx(sse, abs=1e-9 * energy), where
                want = 16 * (charge + numbers) + side + taken
                assert point.total_bits == pytest.approx(want, rel=1e-9, abs=8), where
                checked += 1
    assert not [setting for setting in found if setting.kind == "code"]
    assert checked == sum(15 if share < 1 else 5 for share in grid.shares_of(stage))


def test_svd_points_are_the_truncated_svd(weights):
    singular = np.linalg.svd(weights, compute_uv=False)
    found = points_of(weights, Grid(stages("svd")))
    for share in SHARES:
        rank = round(64 * share)
        point = found[Setting("code", "svd", share)]
        assert point.sse == pytest.approx(np.sum(singular[rank:] ** 2), abs=1e-9 * np.sum(singular**2))
        assert point.total_bits == 16 * rank * (180 + 64)


@pytest.mark.parametrize("shape", [(180, 64), (20, 64), (64, 20)])
def test_low_rank_is_the_best_that_the_budget_pays_for(weights, shape):
    W = weights[: shape[0], : shape[1]]
    singular = np.linalg.svd(W, compute_uv=False)
    found = points_of(W, Grid(()))
    for budget in Grid(()).budgets:
        point = found[Setting("reference", "truncated SVD", budget=budget)]
        rank = min(len(singular), math.floor(budget * W.size / (16 * sum(shape))))
        assert point.total_bits == 16 * rank * sum(shape) <= max(budget, 16 * sum(shape)) * W.size
        assert point.sse == pytest.approx(np.sum(singular[rank:] ** 2), abs=1e-9 * np.sum(singular**2))
    assert found[Setting("reference", "truncated SVD", budget=2**-5)].sse == pytest.approx(np.sum(W**2))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("width", [1, 100, 128, 300])
def test_rounding_to_nearest_is_an_obvious_loop(bits, width):
    W = np.random.default_rng(width).standard_normal((7, width)) ** 3
    W[2] = 0.25
    sse, taken = 0.0, 0
    for row in W:
        for start in range(0, width, 128):
            group = row[start : start + 128]
            low, high = min(group), max(group)
            levels = [low + (high - low) * level / (2**bits - 1) for level in range(2**bits)]
            sse += sum(min((value - level) ** 2 for level in levels) for value in group)
            taken += bits * len(group) + 2 * 16
    point = to_nearest(W, bits)
    assert point.setting == Setting("reference", "round to nearest", bits=bits)
    assert point.total_bits == taken
    assert point.sse == pytest.approx(sse, abs=1e-12 * np.sum(W**2))


def test_white_noise_is_its_own_null():
    W = np.random.default_rng(5).standard_normal((600, 64))
    bases = stages("gaussian", "gaussian(order=assign)", "dct", "svd")
    found = points_of(W, Grid(bases, searched=(1 / 16, 1 / 8)))
    nulls = {setting: point for setting, point in found.items() if setting.kind == "null"}
    assert nulls
    for setting, null in nulls.items():
        code = found[replace(setting, kind="code")]
        # Energy in K of 64 directions of noise errs by about sqrt(2 / (600 K)) of itself.
        assert null.sse / np.sum(W**2) == pytest.approx(code.sse / np.sum(W**2), abs=0.02)
        assert null.total_bits == pytest.approx(code.total_bits, rel=0.05)


def test_the_null_of_structured_weights_keeps_its_share(weights):
    bell = np.exp(-0.5 * ((np.arange(64) - 30) / 9.0) ** 2)
    W = np.outer(np.random.default_rng(0).standard_normal(400), bell)
    W -= W.mean()
    found = points_of(W, Grid(stages("gaussian", "dct")), seed=(7, 1))
    for curve in ("gaussian", "dct"):
        for share in SHARES[:-1]:
            null = found[Setting("null", curve, share)]
            assert 1 - null.sse / np.sum(W**2) == pytest.approx(share, abs=0.02)
        assert found[Setting("code", curve, 1 / 8)].sse < 0.01 * np.sum(W**2)


def test_what_is_shuffled_depends_on_the_seed_alone(weights):
    grid = Grid(stages("dct", "gaussian(order=assign)"), shares=(1 / 8,))
    first, same, other = (points_of(weights, grid, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert first == same
    assert {setting for setting in first if first[setting] != other[setting]} == {
        setting for setting in first if setting.kind == "null"
    }


def test_weights_are_left_as_they_are(weights):
    before = weights.copy()
    list(frontier_points(weights, Grid(stages("svd"), shares=(1 / 8,)), (0,)))
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("text", ["dct", "haar", "random"])
@pytest.mark.parametrize("width", [1, 2, 37, 64])
def test_small_k_is_the_start_of_large_k_where_one_code_serves_all(text, width):
    (stage,) = stages(text)
    whole = replace(stage, n_components=width).basis(width).frame
    for count in {1, width // 2 or 1, width}:
        np.testing.assert_allclose(
            replace(stage, n_components=count).basis(width).frame, whole[:, :count], atol=1e-12
        )


def test_all_components_only_where_functions_do_not_depend_on_k():
    grid = Grid(())
    assert [grid.shares_of(stage)[-1] for stage in stages(*FIXED, "svd", *ORDERED)] == [
        1 / 2, 1, 1, 1, 1, 1 / 2, 1 / 8, 1 / 8,
    ]  # fmt: skip


ODD = {
    "one number": np.array([[3.0]]),
    "one row": np.arange(40.0)[None, :] - 11,
    "one column": np.arange(9.0)[:, None],
    "few rows": np.random.default_rng(0).standard_normal((3, 50)),
    "zeros": np.zeros((6, 33)),
    "a constant": np.full((6, 33), 0.5),
    "huge": 1e140 * np.random.default_rng(1).standard_normal((30, 33)),
    "tiny": 1e-150 * np.random.default_rng(1).standard_normal((30, 33)),
    "rank one": np.outer(np.arange(20.0), np.ones(16)),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_odd_matrices(name):
    W = ODD[name]
    energy = np.sum(W**2)
    for setting, point in points_of(
        W, Grid(stages("gaussian", "gaussian(order=assign)", "haar", "svd"))
    ).items():
        assert 0 <= point.sse <= energy * (1 + 1e-9) or setting.bits is not None, setting
        assert math.isfinite(point.sse), setting
        assert 0 <= point.total_bits < math.inf, setting
        if setting.share == 1 and setting.bits is None:
            assert point.sse <= 1e-9 * energy


def test_points_of_several_matrices_add():
    a, b = Setting("code", "dct", 1 / 8), Setting("null", "dct", 1 / 8)
    total = add_up([[Point(a, 10, 1.0), Point(b, 1, 2.0)], [Point(a, 5, 0.5)]])
    assert total == [Point(a, 15, 1.5), Point(b, 1, 2.0)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=30))
def test_the_front_is_what_no_code_beats(drawn):
    points = [
        Point(Setting("code" if code else "null", "dct", share=index), bits, sse)
        for index, (bits, sse, code) in enumerate(drawn)
    ]
    best = sorted((p.total_bits, p.sse) for p in points if p.setting in front(points))
    assert all(more > less and lost < left for (less, left), (more, lost) in itertools.pairwise(best))
    for point in points:
        if point.setting.kind == "code":
            assert any(bits <= point.total_bits and sse <= point.sse for bits, sse in best)
        else:
            assert point.setting not in front(points)


def test_memory_is_that_of_copies_and_squares():
    assert matrix_bytes(1000, 10) == 8 * (3 * 10_000 + 16 * 100)
