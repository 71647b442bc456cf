"""Moments of weights and coordinates: any split of the rows, any scale, against float64 in two passes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rct_ray.transform.basis import gaussian_basis
from rct_ray.transform.encode import Encoder
from rct_ray.transform.moments import CoordinateMoments, WeightMoments, coordinate_moments, merge_all

MEANS = {"none": 0.0, "usual": 0.3, "huge": 1e8}
# Largest error of the squares about the mean, in units of their size: what rounding the data itself costs.
EPS = np.finfo(np.float64).eps


def cuts_of(generator, rows):
    return np.sort(generator.integers(1, rows, generator.integers(0, 6))) if rows > 1 else []


def moments_of(encoder, rows, cuts):
    return merge_all(encoder.encode(block) for block in np.split(rows, cuts) if len(block))


def assert_two_pass(moments, exact, frame):
    """All moments equal those of all rows in two passes, as far as the size of the mean lets float64."""
    weights, size = moments.weights, max(1.0, np.abs(exact).max())
    mean = math.fsum(exact.ravel()) / exact.size
    squares = math.fsum(((exact - mean) ** 2).ravel())
    slack = 100 * exact.size * (EPS * size) ** 2
    # A mean that is off by its own rounding shifts the squares by twice that times their root.
    first_order = 10 * EPS * size * math.sqrt(squares * exact.size)
    assert weights.count == exact.size
    assert weights.mean == pytest.approx(mean, abs=10 * EPS * size)
    assert weights.squares == pytest.approx(squares, rel=1e-12, abs=slack + first_order)
    assert weights.energy == pytest.approx(math.fsum((exact**2).ravel()), rel=1e-13)
    assert (weights.minimum, weights.maximum) == (exact.min(), exact.max())
    for kept, rows in ((moments.projected, exact @ frame), (moments.columns, exact)):
        centred = rows - rows.mean(axis=0)
        scatter = centred.T @ centred
        assert kept.rows == len(exact)
        np.testing.assert_allclose(kept.mean, rows.mean(axis=0), atol=40 * EPS * size * np.sqrt(len(frame)))
        trace = np.trace(scatter)
        within = 1e-12 * trace + 40 * EPS * size * math.sqrt(trace * exact.size) + 1000 * slack
        np.testing.assert_allclose(kept.scatter, scatter, rtol=0, atol=within)
        assert kept.energy == pytest.approx(np.sum(rows**2), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", MEANS)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(rows=st.integers(1, 40), width=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
def test_merged_blocks_are_all_rows(dtype, mean, rows, width, seed):
    generator = np.random.default_rng(seed)
    block = (generator.standard_normal((rows, width)) + MEANS[mean]).astype(dtype)
    block[:, generator.integers(width)] = block[0, 0]
    frame = gaussian_basis(width, max(1, width // 4)).frame
    merged = moments_of(Encoder(frame, columns=True), block, cuts_of(generator, rows))
    assert_two_pass(merged, block.astype(np.float64), frame)


def test_huge_mean_keeps_the_spread():
    rows = np.random.default_rng(0).standard_normal((4000, 16)) + 1e8
    moments = moments_of(Encoder(None, columns=True), rows, range(100, 4000, 100))
    assert moments.weights.variance == pytest.approx(rows.var(), rel=1e-7)
    np.testing.assert_allclose(np.diag(moments.columns.scatter), 4000 * rows.var(axis=0), rtol=1e-6)


def test_merging_does_not_depend_on_grouping_much():
    generator = np.random.default_rng(2)
    parts = [coordinate_moments(generator.standard_normal((n, 5)) + n) for n in (1, 7, 300, 2)]
    left = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    right = parts[0].merge(parts[1].merge(parts[2].merge(parts[3])))
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-13)
    np.testing.assert_allclose(left.scatter, right.scatter, rtol=1e-12)


def test_merging_in_the_same_order_is_equal_to_the_bit():
    rows = np.random.default_rng(3).standard_normal((50, 9))
    first, second = (moments_of(Encoder(None, columns=True), rows, [10, 11, 40]) for _ in range(2))
    assert first.weights == second.weights
    np.testing.assert_array_equal(first.columns.scatter, second.columns.scatter)


def test_merging_nothing_changes_nothing():
    known = WeightMoments(3, 1.0, 2.0, 0.0, 2.0)
    assert WeightMoments().merge(known) == known
    assert known.merge(WeightMoments()) == known
    assert WeightMoments().variance == 0
    assert WeightMoments().energy == 0
    assert WeightMoments().finite


def test_one_row():
    moments = Encoder(np.eye(4)[:, :2], columns=True).encode(np.array([[1.0, -2, 3, 0]]))
    assert moments.rows == 1
    np.testing.assert_array_equal(moments.projected.mean, [1, -2])
    np.testing.assert_array_equal(moments.columns.scatter, np.zeros((4, 4)))
    assert moments.weights.squares == pytest.approx(13, rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros(dtype):
    moments = Encoder(np.eye(3)[:, :1], columns=True).encode(np.zeros((5, 3), dtype))
    assert moments.weights == WeightMoments(15, 0.0, 0.0, 0.0, 0.0)
    assert moments.projected.energy == 0
    assert moments.weights.finite


def test_constant_columns_do_not_scatter():
    rows = np.tile([0.1, 0.2, 0.7], (16, 1))
    rows[:, 2] += np.arange(16)
    scatter = moments_of(Encoder(None, columns=True), rows, [4, 5]).columns.scatter
    np.testing.assert_allclose(scatter, np.diag([0, 0, 340]), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-38])
def test_tiny_float32_is_not_lost(scale):
    rows = (np.random.default_rng(0).standard_normal((64, 8)) * scale).astype(np.float32)
    frame = gaussian_basis(8, 2).frame
    for single in (False, True):
        moments = Encoder(frame, single=single).encode(rows)
        exact = rows.astype(np.float64)
        assert moments.weights.energy == pytest.approx(np.sum(exact**2), rel=1e-13)
        assert moments.projected.energy == pytest.approx(np.sum((exact @ frame) ** 2), rel=1e-13)


def test_float32_denormals():
    rows = np.full((4, 8), 1e-44, np.float32)
    moments = Encoder(np.eye(8)[:, :1], single=True).encode(rows)
    assert moments.weights.energy == pytest.approx(32 * float(rows[0, 0]) ** 2, rel=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("single", [False, True])
def test_nan_and_inf_are_counted(dtype, single):
    rows = np.ones((6, 4), dtype)
    rows[0, 0] = rows[3, 1] = np.nan
    rows[1, 1], rows[2, 2], rows[5, 3] = np.inf, -np.inf, np.inf
    encoder = Encoder(np.eye(4)[:, :2], single=single)
    moments = encoder.encode(rows)
    assert (moments.weights.nan_count, moments.weights.inf_count, moments.weights.count) == (2, 3, 24)
    assert moments.projected is None
    assert moments.rows == 0
    assert not moments.weights.finite
    plain = encoder.encode(np.ones((2, 4), dtype))
    for both in (moments.merge(plain), plain.merge(moments)):
        assert (both.weights.nan_count, both.weights.inf_count, both.weights.count) == (2, 3, 32)
        assert (both.weights.minimum, both.weights.maximum) == (1, 1)
        assert both.rows == 2
        assert not both.weights.finite
    twice = moments.merge(moments).weights
    assert (twice.nan_count, twice.inf_count) == (4, 6)


@pytest.mark.parametrize(
    "rows",
    [
        np.random.default_rng(0).standard_normal((8, 8)) * 1e200,
        np.full((8, 8), 1e200),
        np.full((8, 8), 1.7e308),
        np.tile([1.7e308, -1.7e308], (40, 20)),
    ],
    ids=["spread", "constant", "sum", "signs"],
)
@pytest.mark.filterwarnings("error")
def test_squares_that_overflow_are_not_finite(rows):
    moments = Encoder(np.eye(rows.shape[1])[:, :2], columns=True).encode(rows)
    assert not moments.weights.finite
    assert (moments.weights.nan_count, moments.weights.inf_count) == (0, 0)
    assert moments.projected is None
    assert moments.columns is None
    assert not moments.weights.merge(Encoder(None).encode(np.ones((2, 2))).weights).finite


def test_merged_squares_that_overflow_are_not_finite():
    far = WeightMoments(1, 1e200, 0.0, 1e200, 1e200), WeightMoments(1, -1e200, 0.0, -1e200, -1e200)
    assert not far[0].merge(far[1]).finite


def test_mapped_moments_are_moments_of_mapped_rows():
    generator = np.random.default_rng(4)
    rows, linear = generator.standard_normal((30, 6)) + 2, generator.standard_normal((6, 3))
    mapped, direct = coordinate_moments(rows).mapped(linear), coordinate_moments(rows @ linear)
    np.testing.assert_allclose(mapped.mean, direct.mean, rtol=1e-12)
    np.testing.assert_allclose(mapped.scatter, direct.scatter, rtol=1e-11)
    np.testing.assert_allclose(coordinate_moments(rows).second_moment, rows.T @ rows, rtol=1e-13)


def test_blocks_are_not_changed():
    for dtype in (np.float32, np.float64):
        rows = np.random.default_rng(5).standard_normal((9, 4)).astype(dtype)
        before = rows.copy()
        Encoder(np.eye(4)[:, :2], columns=True).encode(rows)
        coordinate_moments(rows)
        np.testing.assert_array_equal(rows, before)


def test_energy_of_coordinates_is_about_zero():
    moments = CoordinateMoments(2, np.array([3.0, 4]), np.diag([1.0, 2]))
    assert moments.energy == 3 + 2 * 25
