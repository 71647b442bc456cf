"""Nulls against noise that was really drawn, row by row."""

import zlib

import numpy as np
import pytest

from rct_ray.transform.basis import dct_basis, gaussian_basis
from rct_ray.transform.moments import WeightMoments
from rct_ray.transform.noise import noise_coordinates, noise_weights, wishart
from rct_ray.transform.tower import noise_seed
from rct_ray.transform.tower_language import parse_tower


def centred_rows(rows, width, seed=0):
    """Rows whose grand mean is zero to the bit: every row comes with its negative."""
    half = np.random.default_rng(seed).standard_normal((rows // 2, width))
    return np.vstack([half, -half])


@pytest.mark.parametrize("metric", ["isometric", "amplitude"])
@pytest.mark.parametrize("name", ["gaussian", "dct", "haar"])
@pytest.mark.parametrize(("rows", "width", "count"), [(2, 16, 1), (40, 64, 2), (40, 64, 64), (300, 100, 8)])
def test_a_fixed_basis_keeps_its_share_of_noise_without_a_mean(name, rows, width, count, metric, ascend):
    matrix = centred_rows(rows, width)
    level = ascend(matrix, f"{name}({count})", metric).levels[1]
    assert level.null_r2 == pytest.approx(count / width, abs=1e-12)


@pytest.mark.parametrize("rows", [2, 5, 400])
@pytest.mark.parametrize("name", ["gaussian", "dct"])
def test_a_mean_is_kept_as_far_as_the_basis_can(rows, name, ascend):
    matrix = np.random.default_rng(0).standard_normal((rows, 64)) + 0.7
    level = ascend(matrix, f"{name}(4) > pca(0.9)").levels[1]
    frame = {"gaussian": gaussian_basis, "dct": dct_basis}[name](64, 4).frame
    inside = np.sum(frame.sum(axis=0) ** 2)
    kept = 4 * matrix.var() + matrix.mean() ** 2 * inside
    assert level.null_r2 == pytest.approx(kept / (64 * np.mean(matrix**2)), abs=1e-12)


def test_one_row_keeps_the_same_share():
    weights = WeightMoments(64, 0.0, 128.0)
    noise = noise_coordinates(weights, 1, dct_basis(64, 8).frame, 64, np.random.default_rng(0))
    assert noise.energy == pytest.approx(16, rel=1e-13)


def draws_of(ascend, rows, width, text, draws, mean=0.0):
    """Mean over draws of every level's figures, of real noise and of its null, and their standard errors."""
    generator = np.random.default_rng(rows * width)
    real, null = [], []
    for draw in range(draws):
        matrix = generator.standard_normal((rows, width)) + mean
        levels = ascend(matrix, text, seed=(draw,)).levels[1:]
        real.append([(level.r2, level.participation_ratio or 0) for level in levels])
        null.append([(level.null_r2, level.null_participation_ratio or 0) for level in levels])
    real, null = np.array(real), np.array(null)
    error = np.sqrt((real.var(axis=0) + null.var(axis=0)) / draws)
    return real.mean(axis=0), null.mean(axis=0), error


@pytest.mark.parametrize(
    ("rows", "width", "text", "mean"),
    [
        (300, 64, "gaussian(8) > pca(0.5)", 0),
        (300, 64, "gaussian(8) > pca(0.5)", 1),
        (40, 64, "dct(16) > pca(0.8) > pca(0.5)", 0),
        (100, 32, "svd(4) > pca(0.5)", 0),
        (100, 32, "svd(4) > pca(0.5)", 2),
        (20, 64, "svd(3) > pca(0.5)", 0),
        (5, 64, "svd(3) > pca(0.5)", 0),
        (100, 32, "pca(0.5) > pca(0.9)", 0),
        (20, 64, "pca(0.5) > haar(2)", 0),
        (10, 32, "pca(0.5)", 1),
    ],
)
def test_null_is_noise_at_the_same_number_of_components(rows, width, text, mean, ascend):
    real, null, error = draws_of(ascend, rows, width, text, 150, mean)
    # Five standard errors, and what a draw's own grand mean adds to K/d: at most one weight's worth.
    np.testing.assert_array_less(np.abs(real - null), 5 * error + [2 / (rows * width), 0.02 * width / rows])


def test_white_noise_has_no_structure(ascend):
    rows = np.random.default_rng(0).standard_normal((4096, 256))
    levels = ascend(rows, "gaussian(8) > pca(0.95)").levels
    assert levels[1].r2 == pytest.approx(8 / 256, abs=0.003)
    assert abs(levels[1].lift) < 0.005
    assert abs(levels[2].lift) < 0.005
    assert levels[2].participation_ratio == pytest.approx(levels[2].null_participation_ratio, rel=0.02)


def test_low_rank_has_all_the_structure(ascend):
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((500, 3)) @ generator.standard_normal((3, 96))
    level = ascend(rows, "svd(3)").levels[1]
    assert level.r2 > 1 - 1e-12
    assert level.null_r2 < 0.2
    assert level.lift > 1 - 1e-11


def test_null_keeps_what_noise_would_in_the_components_the_weights_need(ascend):
    """The weights need 2 of 32 components; noise in 2 of 32, drawn row by row, keeps far less than 0.95."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((200, 2)) @ generator.standard_normal((2, 32))
    rows += 1e-3 * generator.standard_normal((200, 32))
    rows -= rows.mean()
    level = ascend(rows, "pca(0.95)").levels[1]
    values = np.mean([np.linalg.svd(generator.standard_normal((200, 32)))[1] ** 2 for _ in range(20)], axis=0)
    assert level.n_keep == 2
    assert level.null_r2 == pytest.approx(values[:2].sum() / values.sum(), abs=0.02)


def test_null_of_a_sample_is_of_as_many_rows(ascend):
    """Fewer rows fit noise better."""
    rows = np.random.default_rng(0).standard_normal((2000, 64))
    few, many = (ascend(rows[:count], "svd(4)").levels[1].null_r2 for count in (64, 2000))
    assert few > many + 0.05


def figures(levels):
    return [(level.null_sse, level.null_participation_ratio, level.sse) for level in levels]


def test_the_seed_decides_the_null(ascend, coloured):
    rows, text = coloured(50, 64), "svd(8) > pca(0.9)"
    first, again, other = (ascend(rows, text, seed=seed).levels for seed in [(7, 1), (7, 1), (7, 2)])
    assert first == again
    assert figures(first) != figures(other)
    assert [level.sse for level in first] == [level.sse for level in other]


def test_noise_seed_is_stable():
    assert noise_seed(3, "a", "b") == (3, zlib.crc32(b"a"), zlib.crc32(b"b"))
    assert noise_seed(0) == (0,)


@pytest.mark.parametrize(("size", "freedom"), [(6, 40), (6, 6), (6, 3), (1, 5), (4, 0)])
def test_wishart_has_the_moments_of_a_scatter(size, freedom):
    generator = np.random.default_rng(size + freedom)
    draws = np.array([wishart(size, freedom, generator) for _ in range(4000)])
    np.testing.assert_array_equal(draws, np.swapaxes(draws, 1, 2))
    tolerance = 5 * np.sqrt(2 * freedom / 4000) + 1e-12
    np.testing.assert_allclose(draws.mean(axis=0), freedom * np.eye(size), atol=tolerance)
    variance = freedom * (np.ones((size, size)) + np.eye(size))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.25, atol=1e-12)
    assert np.linalg.matrix_rank(draws[0]) == min(size, freedom)


def test_wishart_and_drawn_rows_have_the_same_spectrum():
    generator = np.random.default_rng(0)
    drawn = [np.linalg.eigvalsh(wishart(8, 20, generator)) for _ in range(500)]
    rows = [np.linalg.svd(generator.standard_normal((20, 8)))[1][::-1] ** 2 for _ in range(500)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), np.mean(rows, axis=0), rtol=0.06)


@pytest.mark.parametrize("mean", [0.0, 0.5, 1e6])
@pytest.mark.parametrize("rows", [1, 2, 9, 500])
def test_noise_has_the_energy_of_the_weights(rows, mean):
    weights = WeightMoments(rows * 32, mean, 3.0 * rows * 32)
    noise = noise_coordinates(weights, rows, None, 32, np.random.default_rng(0))
    assert noise.energy == pytest.approx(weights.energy, rel=1e-12)
    assert noise.rows == rows
    assert np.linalg.matrix_rank(noise.scatter) <= rows - 1


def test_constant_weights_have_constant_noise():
    noise = noise_coordinates(WeightMoments(320, 2.0, 0.0), 10, None, 32, np.random.default_rng(0))
    np.testing.assert_array_equal(noise.mean, np.full(32, 2.0))
    np.testing.assert_array_equal(noise.scatter, np.zeros((32, 32)))


def test_noise_weights_have_count_mean_and_variance():
    like = WeightMoments(10, 0.5, 4.0, -1.0, 2.0)
    noise = noise_weights(like)
    assert (noise.count, noise.mean, noise.variance, noise.energy) == (10, 0.5, 0.4, like.energy)


def test_null_keeps_as_many_components_as_the_weights(ascend, coloured):
    from_few = ascend(coloured(80, 32), "pca(0.5)").levels[1]
    from_many = ascend(coloured(80, 32), "pca(0.99)").levels[1]
    assert from_few.n_keep < from_many.n_keep
    assert from_few.null_r2 < from_many.null_r2
    assert parse_tower("pca(0.5)")[0].threshold == from_few.threshold
