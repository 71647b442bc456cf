"""Description lengths and the SVD bound, against the formulas and a truncated SVD of the matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rct_ray.transform.code_length import bits_per_weight, svd_bound
from rct_ray.transform.encode import Encoder
from rct_ray.transform.tower import tower
from rct_ray.transform.tower_language import parse_tower


@given(
    weights=st.integers(1, 10**9),
    params=st.integers(1, 10**9),
    side_bits=st.floats(0, 1e9),
    share=st.floats(1e-6, 1),
    sst=st.floats(1e-9, 1e9),
    target=st.sampled_from([0.9, 0.99, 0.999]),
)
def test_bits_are_the_formula(weights, params, side_bits, share, sst, target):
    sse = share * sst
    residual = weights / 2 * max(0.0, np.log2(sse / ((1 - target) * sst)))
    bits = bits_per_weight(weights, params, side_bits, sse, sst, target)
    assert bits == pytest.approx((16 * params + side_bits + residual) / weights, rel=1e-12, abs=1e-12)


def test_bits_by_hand():
    # 100 weights, 10 parameters, half of the energy left: 160 + 3 + 50 log2(50).
    assert bits_per_weight(100, 10, 3.0, 5.0, 10.0) == pytest.approx(1.63 + 0.5 * np.log2(50), rel=1e-14)
    assert bits_per_weight(100, 10, 0.0, 0.1, 10.0) == pytest.approx(1.6)
    assert bits_per_weight(100, 10, 0.0, 0.0, 10.0) == 1.6
    assert bits_per_weight(100, 10, 0.0, 0.0, 0.0) == 1.6


@pytest.mark.parametrize("shape", [(60, 24), (10, 40), (1, 8), (8, 1)])
def test_svd_bound_is_the_best_matrix_of_that_size(shape):
    rows, width = shape
    matrix = np.random.default_rng(rows).standard_normal(shape) + 0.2
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    eigenvalues = np.linalg.eigvalsh(matrix.T @ matrix)[::-1]
    for params in range(1, rows * width + 200):
        rank = max(r for r in range(rows * width + 200) if r * (rows + width) <= params)
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        kept = np.sum(matrix**2) - np.sum((matrix - best) ** 2)
        assert svd_bound(eigenvalues, rows, params) == pytest.approx(kept, rel=1e-9, abs=1e-9)


def test_every_level_has_its_bound(coloured, ascend):
    rows = coloured(120, 48)
    values = np.linalg.svd(rows, compute_uv=False)
    climbed = ascend(rows, "gaussian(16) > pca(0.95) > pca(0.9)", blocks=5)
    np.testing.assert_allclose(climbed.eigenvalues, values**2, atol=1e-9 * values[0] ** 2)
    for level in climbed.levels:
        rank = level.params // (120 + 48)
        assert level.svd_bound_r2 == pytest.approx(np.sum(values[:rank] ** 2) / np.sum(rows**2), abs=1e-9)


def test_no_bound_without_the_columns():
    stages = parse_tower("dct(4) > pca(0.95)")
    rows = np.random.default_rng(0).standard_normal((30, 16))
    climbed = tower(Encoder(stages[0].basis(16).frame).encode(rows), 16, stages)
    assert climbed.eigenvalues is None
    assert [level.svd_bound_r2 for level in climbed.levels] == [None, None, None]


def test_bits_of_every_level(coloured, ascend):
    rows = coloured(120, 64)
    levels = ascend(rows, "svd(8) > pca(0.9)").levels
    for level in levels[1:]:
        bits = bits_per_weight(rows.size, level.params, 0.0, level.sse, level.sst)
        assert level.bits_per_weight == pytest.approx(bits, rel=1e-14)
    assert levels[0].bits_per_weight == pytest.approx(3.3219, abs=5e-5)
