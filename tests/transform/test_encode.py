"""The float32 path of the encoder against the float64 one."""

import numpy as np
import pytest

from rct_ray.transform.basis import dct_basis, gaussian_basis, haar_basis
from rct_ray.transform.encode import Encoder
from rct_ray.transform.moments import merge_all
from rct_ray.transform.tower import tower
from rct_ray.transform.tower_language import parse_tower


def moments_of(rows, frame, single, block=256):
    encoder = Encoder(frame, single=single)
    return merge_all(encoder.encode(rows[start : start + block]) for start in range(0, len(rows), block))


def levels_of(rows, basis, single):
    stages = parse_tower(f"dct({basis.frame.shape[1]}) > pca(0.95)")
    return tower(moments_of(rows, basis.frame, single), rows.shape[1], stages, basis=basis).levels


def white(generator, shape):
    return generator.standard_normal(shape) * 0.02


def heavy(generator, shape):
    return generator.standard_t(3, shape)


def low_rank(generator, shape, rank=30):
    return generator.standard_normal((shape[0], rank)) @ generator.standard_normal((rank, shape[1]))


def with_mean(generator, shape):
    return generator.standard_normal(shape) + 0.5


def with_column_means(generator, shape):
    return generator.standard_normal(shape) + generator.standard_normal(shape[1])


KINDS = {make.__name__: make for make in (white, heavy, low_rank, with_mean, with_column_means)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("width", "basis"),
    [(256, gaussian_basis(256, 8)), (256, dct_basis(256, 8)), (1024, haar_basis(1024, 32))],
    ids=["gaussian", "dct", "haar"],
)
def test_a_million_weights_agree(kind, width, basis):
    rows = KINDS[kind](np.random.default_rng(len(kind)), (2**20 // width, width)).astype(np.float32)
    for fast, exact in zip(levels_of(rows, basis, True), levels_of(rows, basis, False), strict=True):
        assert fast.r2 == pytest.approx(exact.r2, abs=1e-9)
        assert fast.r2_centered == pytest.approx(exact.r2_centered, abs=1e-9)
        assert fast.n_keep == exact.n_keep
        assert fast.params == exact.params
        assert fast.sst == pytest.approx(exact.sst, rel=1e-8)
        if exact.participation_ratio:
            assert fast.participation_ratio == pytest.approx(exact.participation_ratio, rel=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_million_weights_of_few_patterns_agree_less(rank):
    """Rows that are multiples of one another are rounded alike."""
    rows = low_rank(np.random.default_rng(rank), (4096, 256), rank).astype(np.float32)
    basis = gaussian_basis(256, 8)
    for fast, exact in zip(levels_of(rows, basis, True), levels_of(rows, basis, False), strict=True):
        assert fast.r2 == pytest.approx(exact.r2, abs=1e-8)


def test_rounding_of_the_frame_itself_is_corrected():
    """1 / sqrt(247) loses 5.6e-8 of itself in float32: 1e-7 of the energy of level rows, were it not undone."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((4000, 1)) + 0.3 * generator.standard_normal((4000, 247))
    basis, rows = haar_basis(247, 4), rows.astype(np.float32)
    fast, exact = (levels_of(rows, basis, single)[1].r2 for single in (True, False))
    assert fast == pytest.approx(exact, abs=4e-8)
    assert exact > 0.9


def test_trained_weights_agree(trained):
    rows = np.vstack([matrix for matrix in trained.values() if matrix.shape[1] == 256])
    basis = gaussian_basis(256, 8)
    for fast, exact in zip(levels_of(rows, basis, True), levels_of(rows, basis, False), strict=True):
        assert fast.r2 == pytest.approx(exact.r2, abs=2e-9)
        assert fast.n_keep == exact.n_keep


def same(left, right):
    assert left.weights == right.weights
    np.testing.assert_array_equal(left.projected.mean, right.projected.mean)
    np.testing.assert_array_equal(left.projected.scatter, right.projected.scatter)


@pytest.mark.parametrize(
    ("scale", "mean"),
    [(1.0, 1e4), (1.0, 1.0), (1e-20, 0.0), (1e20, 0.0), (0.0, 0.0), (0.0, 3.0)],
    ids=["huge mean", "mean", "tiny", "large", "zeros", "constant"],
)
def test_what_float32_cannot_carry_is_done_in_float64(scale, mean):
    noise = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    rows = noise * np.float32(scale) + np.float32(mean)
    frame = gaussian_basis(32, 2).frame
    same(Encoder(frame, single=True).encode(rows), Encoder(frame).encode(rows))


def test_rows_alike_are_done_in_float64():
    generator = np.random.default_rng(2)
    # No grand mean to speak of, but every row is nearly the same smooth curve.
    curve = np.cos(np.arange(64) / 10)
    rows = (curve - curve.mean() + 1e-3 * generator.standard_normal((200, 64))).astype(np.float32)
    frame = dct_basis(64, 8).frame
    same(Encoder(frame, single=True).encode(rows), Encoder(frame).encode(rows))


def test_float64_blocks_are_never_rounded():
    rows = np.random.default_rng(3).standard_normal((64, 32))
    frame = gaussian_basis(32, 2).frame
    same(Encoder(frame, single=True).encode(rows), Encoder(frame).encode(rows))


def test_the_float32_path_is_taken_for_ordinary_weights():
    rows = white(np.random.default_rng(4), (256, 64)).astype(np.float32)
    frame = gaussian_basis(64, 2).frame
    fast, exact = Encoder(frame, single=True).encode(rows), Encoder(frame).encode(rows)
    assert fast.weights.energy != exact.weights.energy
    np.testing.assert_allclose(fast.projected.scatter, exact.projected.scatter, rtol=1e-5)


def test_columns_are_always_float64():
    rows = white(np.random.default_rng(5), (256, 64)).astype(np.float32)
    frame = gaussian_basis(64, 2).frame
    same(Encoder(frame, columns=True, single=True).encode(rows), Encoder(frame, columns=True).encode(rows))


def test_only_what_was_asked_for_is_kept():
    rows = np.ones((3, 4))
    alone = Encoder(None).encode(rows)
    assert alone.projected is None
    assert alone.columns is None
    assert Encoder(None, columns=True).encode(rows).projected is None
    assert Encoder(np.eye(4), columns=False).encode(rows).columns is None
