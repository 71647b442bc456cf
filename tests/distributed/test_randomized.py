"""Random subspaces find what a full SVD finds, where the spectrum lets them."""

import numpy as np
import pytest

from rct_ray.transform.randomized import BlockRows, leading_spectrum, spectrum_reaching


def with_spectrum(values, rows, width, seed=0, mean=0.0):
    """Rows whose centred singular values are given."""
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((rows, len(values)))
    U = np.linalg.qr(U - U.mean(axis=0)).Q
    V = np.linalg.qr(rng.standard_normal((width, len(values)))).Q
    return U * values @ V.T + mean


def singular(spectrum):
    return np.sqrt(spectrum.eigenvalues)


def of(X, *ends):
    return BlockRows(np.split(X, ends or (100, 101, 101, 250)))


def test_decaying_spectrum():
    values = 2.0 ** -np.arange(60)
    found = leading_spectrum(of(with_spectrum(values, 400, 200)), 8)
    np.testing.assert_allclose(singular(found), values[:8], rtol=1e-10)


def test_at_least_four_iterations_and_more_while_values_move(monkeypatch):
    products = []
    monkeypatch.setattr(
        BlockRows,
        "scatter_times",
        lambda self, basis, of=BlockRows.scatter_times: products.append(1) or of(self, basis),
    )
    leading_spectrum(of(with_spectrum(4.0 ** -np.arange(60), 400, 200)), 8)
    assert len(products) == 4
    products.clear()
    values = 0.9 ** np.arange(150)
    found = leading_spectrum(of(with_spectrum(values, 400, 200)), 10)
    assert 4 < len(products) < 12
    np.testing.assert_allclose(singular(found), values[:10], rtol=1e-8)
    products.clear()
    leading_spectrum(of(np.random.default_rng(0).standard_normal((400, 200))), 10)
    assert len(products) == 12


def test_slow_decay_is_near_optimal():
    values = 1 / np.arange(1, 101)
    X = with_spectrum(values, 400, 200)
    found = leading_spectrum(of(X), 10)
    left = np.linalg.norm(
        X - X.mean(axis=0) - (X - X.mean(axis=0)) @ found.components.T @ found.components, 2
    )
    assert left / values[10] - 1 < 1e-2
    np.testing.assert_allclose(singular(found), values[:10], rtol=1e-3)
    worse = leading_spectrum(of(X), 10, most_iterations=0)
    assert np.abs(singular(worse) / values[:10] - 1).max() > 0.1


def test_exact_low_rank():
    values = np.array([5.0, 4, 3, 2, 1])
    found = leading_spectrum(of(with_spectrum(values, 400, 200)), 12)
    assert found.components.shape == (12, 200)
    np.testing.assert_allclose(singular(found)[:5], values, rtol=1e-13)
    assert (singular(found)[5:] < 1e-13).all()
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(12), atol=1e-12)


def test_small_singular_values_are_not_lost_to_squaring():
    values = np.geomspace(1, 1e-9, 20)
    rows = of(with_spectrum(values, 400, 200))
    np.testing.assert_allclose(singular(leading_spectrum(rows, 20)), values, rtol=1e-4)
    # One multiplication by X^T X would lose them at once, were it not orthonormalised in between.
    np.testing.assert_allclose(singular(leading_spectrum(rows, 20, most_iterations=1)), values, rtol=1e-3)


@pytest.mark.parametrize("mean", [1e4, 1e8])
def test_huge_mean(mean):
    values = 2.0 ** -np.arange(30)
    X = with_spectrum(values * 1e3, 400, 200) + mean
    exact = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)[:5]
    np.testing.assert_allclose(singular(leading_spectrum(of(X), 5)), exact, rtol=1e-12)


def test_components_match_with_their_signs():
    X = with_spectrum(2.0 ** -np.arange(40), 400, 200)
    found = leading_spectrum(of(X), 6)
    right = np.linalg.svd(X - X.mean(axis=0))[2][:6]
    right *= np.sign(right[np.arange(6), np.abs(right).argmax(axis=1)])[:, None]
    np.testing.assert_allclose(found.components, right, atol=1e-10)


def test_constant_rows():
    X = np.full((50, 80), 3.0)
    found = leading_spectrum(of(X, 20), 3)
    np.testing.assert_array_equal(found.eigenvalues, np.zeros(3))
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(3), atol=1e-14)


@pytest.mark.parametrize(("count", "exact"), [(40, True), (31, True), (30, False), (3, False)])
def test_exact_beyond_half_of_all(count, exact):
    class Counting(BlockRows):
        passes = 0

        def factors(self, basis):
            self.passes += 1
            return super().factors(basis)

    X = np.random.default_rng(0).standard_normal((300, 80))
    rows = Counting(np.split(X, 3))
    found = leading_spectrum(rows, count)
    assert found.components.shape == (count, 80)
    assert (rows.passes == 1) is exact
    if exact:
        wanted = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)[:count]
        np.testing.assert_allclose(singular(found), wanted, rtol=1e-13)


@pytest.mark.parametrize(("threshold", "wanted"), [(0.5, 1), (0.9, 2), (0.99, 4), (0.999999, 10)])
def test_share_of_the_variance(threshold, wanted):
    values = 2.0 ** -np.arange(60)
    rows = of(with_spectrum(values, 400, 200, mean=2.0))
    assert rows.total == pytest.approx((values**2).sum(), rel=1e-12)
    found = spectrum_reaching(rows, threshold, rows.total)
    assert len(found.eigenvalues) == wanted == len(found.components)
    np.testing.assert_allclose(singular(found), values[:wanted], rtol=1e-10)


def test_subspace_grows_until_the_share_is_met():
    values = np.concatenate([np.ones(50), np.full(60, 1e-3)])
    rows = of(with_spectrum(values, 600, 400))
    found = spectrum_reaching(rows, 0.95, rows.total)
    assert len(found.eigenvalues) == 48
    np.testing.assert_allclose(singular(found), 1, rtol=1e-6)


def test_share_that_needs_too_much_is_computed_exactly():
    X = np.random.default_rng(0).standard_normal((600, 100))
    rows = of(X)
    exact = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    wanted = int(np.searchsorted(np.cumsum(exact**2), 0.9 * (exact**2).sum())) + 1
    found = spectrum_reaching(rows, 0.9, rows.total)
    np.testing.assert_allclose(singular(found), exact[:wanted], rtol=1e-13)
    assert len(spectrum_reaching(rows, 1.0, rows.total).eigenvalues) == 100


def test_same_seed_same_bits():
    X = with_spectrum(1 / np.arange(1, 101), 400, 200)
    first, again = (leading_spectrum(of(X), 5, seed=7) for _ in range(2))
    other = leading_spectrum(of(X), 5, seed=8)
    assert first.components.tobytes() == again.components.tobytes()
    assert first.components.tobytes() != other.components.tobytes()
