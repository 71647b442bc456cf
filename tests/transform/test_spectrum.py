"""Eigenvalues, participation ratio, and how many components a share needs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rct_ray.transform.spectrum import components_needed, eigendecomposition, participation_ratio

seeds = st.integers(0, 2**32 - 1)


def scatter_of(size, rank, seed):
    rows = np.random.default_rng(seed).standard_normal((rank, size))
    return rows.T @ rows


@settings(deadline=None)
@given(size=st.integers(1, 20), rank=st.integers(1, 25), seed=seeds)
def test_eigendecomposition_rebuilds_the_scatter(size, rank, seed):
    scatter = scatter_of(size, rank, seed)
    spectrum = eigendecomposition(scatter)
    values, components = spectrum.eigenvalues, spectrum.components
    assert np.all(values >= 0)
    assert np.all(np.diff(values) <= 0)
    np.testing.assert_allclose(components @ components.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(components.T * values @ components, scatter, atol=1e-11 * np.trace(scatter))
    peaks = components[np.arange(size), np.argmax(np.abs(components), axis=1)]
    assert np.all(peaks > 0)


def test_signs_do_not_depend_on_the_rows_signs():
    scatter = scatter_of(6, 20, 1)
    flip = np.diag([1.0, -1, 1, -1, -1, 1])
    np.testing.assert_allclose(
        np.abs(eigendecomposition(flip @ scatter @ flip).components),
        np.abs(eigendecomposition(scatter).components),
        atol=1e-12,
    )


@settings(deadline=None)
@given(
    size=st.integers(1, 20), rank=st.integers(1, 25), seed=seeds, scale=st.sampled_from([1e-150, 1, 1e150])
)
def test_participation_ratio_is_the_eigenvalue_formula(size, rank, seed, scale):
    scatter = scatter_of(size, rank, seed)
    values = np.linalg.eigvalsh(scatter)
    ratio = participation_ratio(scatter * scale)
    assert ratio == pytest.approx(values.sum() ** 2 / np.sum(values**2), rel=1e-10)
    assert 1 - 1e-12 <= ratio <= min(size, rank) + 1e-9


def test_participation_ratio_of_equals_one_and_nothing():
    assert participation_ratio(3 * np.eye(5)) == pytest.approx(5, rel=1e-15)
    assert participation_ratio(np.diag([0.0, 7, 0])) == 1
    assert participation_ratio(np.zeros((4, 4))) is None


@pytest.mark.parametrize(
    ("eigenvalues", "threshold", "count"),
    [
        ([8, 1, 1], 0.8, 1),
        ([8, 1, 1], 0.81, 2),
        ([8, 1, 1], 0.9, 2),
        ([8, 1, 1], 0.91, 3),
        ([1, 1, 1, 1], 0.5, 2),
        ([1, 1, 1, 1], 0.5000001, 3),
        ([1] * 20, 0.95, 19),
        ([5, 4, 3, 0, 0], 1, 3),
        ([5, 4, 3, 1e-30, 1e-31], 1, 3),
        ([2, 2], 1, 2),
        ([3], 0.01, 1),
        ([0, 0, 0], 0.95, 1),
        ([0, 0, 0], 1, 1),
        ([1e-300, 1e-301], 0.9, 1),
    ],
)
def test_components_needed(eigenvalues, threshold, count):
    assert components_needed(np.array(eigenvalues, dtype=float), threshold) == count


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(0.01, 1))
def test_components_needed_is_the_fewest(eigenvalues, threshold):
    eigenvalues = np.sort(eigenvalues)[::-1]
    count = components_needed(eigenvalues, threshold)
    running = np.cumsum(eigenvalues)
    assert running[count - 1] >= threshold * running[-1]
    assert count == 1 or running[count - 2] < threshold * running[-1]
