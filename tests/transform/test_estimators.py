"""The scikit-learn estimators: scikit-learn's own checks, and its PCA."""

import numpy as np
import pytest
import scipy.fft
import sklearn.decomposition
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from rct_ray import PCA, DCTBasis, GaussianBasis, HaarBasis, SVDBasis
from rct_ray.transform.basis import gaussian_basis, gaussian_functions
from rct_ray.transform.tower_estimator import Tower
from rct_ray.transform.tower_language import TowerSyntaxError

ESTIMATORS = [
    GaussianBasis(),
    GaussianBasis(metric="amplitude"),
    DCTBasis(),
    HaarBasis(),
    SVDBasis(),
    PCA(),
    Tower(),
    Tower("svd > pca(0.9)", metric="amplitude"),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture
def rows(coloured):
    return coloured(120, 48)


@pytest.mark.parametrize("estimator", [*ESTIMATORS, PCA(n_components=5)], ids=repr)
def test_everyday_use(estimator, rows):
    fitted = clone(estimator).fit(rows)
    codes = fitted.transform(rows)
    rebuilt = fitted.inverse_transform(codes)
    assert codes.shape == (120, fitted.n_components_)
    assert rebuilt.shape == rows.shape
    assert np.sum((rows - rebuilt) ** 2) < np.sum(rows**2)
    # Coding what was decoded changes nothing.
    np.testing.assert_allclose(fitted.transform(rebuilt), codes, atol=1e-9 * np.abs(codes).max())
    name = type(estimator).__name__.lower()
    assert list(fitted.get_feature_names_out()) == [f"{name}{k}" for k in range(fitted.n_components_)]
    np.testing.assert_allclose(clone(estimator).fit_transform(rows), codes, rtol=0, atol=1e-12)
    piped = make_pipeline(StandardScaler(), clone(estimator)).fit(rows)
    assert piped.inverse_transform(piped.transform(rows)).shape == rows.shape
    assert repr(clone(estimator)) == repr(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_unfitted_and_misshapen(estimator, rows):
    with pytest.raises(NotFittedError):
        clone(estimator).transform(rows)
    with pytest.raises(NotFittedError):
        clone(estimator).inverse_transform(rows)
    with pytest.raises(ValueError, match="48 features"):
        clone(estimator).fit(rows).transform(rows[:, :5])
    with pytest.raises(ValueError, match="NaN"):
        clone(estimator).fit(np.where(rows > 0, np.nan, rows))


@pytest.mark.parametrize(
    ("estimator", "match"),
    [
        *[
            (kind(n_components=count), "n_components|components of 48 columns")
            for kind in (GaussianBasis, DCTBasis, HaarBasis, SVDBasis, PCA)
            for count in (-1, 0, 49)
        ],
        (GaussianBasis(width=0), "width must be positive"),
        (GaussianBasis(width=-1.0), "width must be positive"),
        (GaussianBasis(width=np.nan), "width must be positive"),
        (GaussianBasis(metric="euclid"), "metric must be"),
        (GaussianBasis(8, width=50, metric="amplitude"), "nearly dependent"),
        (PCA(threshold=0), "threshold must be"),
        (PCA(threshold=1.1), "threshold must be"),
        (PCA(threshold=np.nan), "threshold must be"),
        (Tower("fourier"), "unknown stage 'fourier'"),
        (Tower(""), "expected a stage"),
        (Tower("dct(49)"), "49 components of 48 columns"),
        (Tower("svd(49)"), "more components than the 48 columns"),
        (Tower(metric="euclid"), "metric must be"),
        (Tower("gaussian(K=8, width=50)", metric="amplitude"), "nearly dependent"),
        (Tower(seed=-1), "non-negative"),
    ],
    ids=repr,
)
def test_bad_parameters_raise_value_errors(estimator, match, rows):
    with pytest.raises(ValueError, match=match):
        estimator.fit(rows)


def test_towers_that_cannot_be_read_say_where(rows):
    with pytest.raises(TowerSyntaxError, match="at character 7 of the tower: pca > →fourier"):
        Tower("pca > fourier").fit(rows)


def test_squares_that_overflow_are_refused():
    with pytest.raises(ValueError, match="overflow"):
        Tower("pca").fit(np.full((4, 4), 1e200))


def test_gaussian_basis(rows):
    fitted = GaussianBasis(6, metric="amplitude").fit(rows)
    functions = gaussian_functions(48, 6)
    np.testing.assert_allclose(fitted.transform(rows), rows @ np.linalg.pinv(functions), atol=1e-12)
    np.testing.assert_allclose(fitted.components_, functions, atol=1e-14)
    np.testing.assert_allclose(fitted.gaussians_, functions, atol=1e-14)
    np.testing.assert_array_equal(fitted.centres_, np.linspace(0, 47, 6))
    assert fitted.sigma_ == 8
    np.testing.assert_array_equal(fitted.mean_, np.zeros(48))
    flat = GaussianBasis(6).fit(rows)
    np.testing.assert_allclose(flat.transform(rows), rows @ gaussian_basis(48, 6).frame, atol=1e-14)
    np.testing.assert_allclose(
        flat.inverse_transform(flat.transform(rows)),
        fitted.inverse_transform(fitted.transform(rows)),
        atol=1e-12,
    )
    assert GaussianBasis(6, width=2.0).fit(rows).sigma_ == 16


def test_dct_and_haar_bases(rows):
    codes = DCTBasis(5).fit_transform(rows)
    np.testing.assert_allclose(codes, scipy.fft.dct(rows, norm="ortho")[:, :5], atol=1e-13)
    complete = HaarBasis(48).fit(rows)
    np.testing.assert_allclose(complete.inverse_transform(complete.transform(rows)), rows, atol=1e-14)
    assert DCTBasis().fit(np.ones((2, 256))).n_components_ == 8


def test_svd_basis_is_the_svd(rows):
    fitted = SVDBasis(7).fit(rows)
    values, right = np.linalg.svd(rows, full_matrices=False)[1:]
    np.testing.assert_allclose(fitted.singular_values_, values[:7], rtol=1e-9)
    np.testing.assert_allclose(np.abs(fitted.components_ @ right[:7].T), np.eye(7), atol=1e-7)


def by_blocks(estimator, rows):
    for block in np.split(rows, [1, 2, 40, 90]):
        estimator.partial_fit(block)
    return estimator


def test_partial_fit_is_fit(rows):
    for whole, parts in (
        (SVDBasis(7).fit(rows), by_blocks(SVDBasis(7), rows)),
        (PCA(0.9).fit(rows), by_blocks(PCA(0.9), rows)),
    ):
        np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-8)
        np.testing.assert_allclose(parts.singular_values_, whole.singular_values_, rtol=1e-10)
        np.testing.assert_allclose(parts.mean_, whole.mean_, atol=1e-14)
    whole, parts = Tower().fit(rows), by_blocks(Tower(), rows)
    for one, other in zip(whole.levels_, parts.levels_, strict=True):
        assert (one.params, one.n_keep) == (other.params, other.n_keep)
        assert one.sse == pytest.approx(other.sse, rel=1e-10, abs=1e-15)


def test_fit_forgets_what_was_fitted_before(rows):
    again = PCA(0.9).fit(rows[:50] + 7).fit(rows)
    np.testing.assert_array_equal(again.components_, PCA(0.9).fit(rows).components_)
    assert again.n_samples_seen_ == 120


@pytest.mark.parametrize("shape", [(200, 30), (20, 50), (31, 31)])
@pytest.mark.parametrize("count", [1, 5, 15])
def test_pca_is_scikit_learns(shape, count, coloured):
    rows = coloured(*shape)
    ours = PCA(n_components=count).fit(rows)
    theirs = sklearn.decomposition.PCA(count, svd_solver="full").fit(rows)
    np.testing.assert_allclose(ours.mean_, theirs.mean_, atol=1e-15)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-8)
    np.testing.assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-8)
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-8)
    signs = np.sign(np.sum(ours.components_ * theirs.components_, axis=1))
    np.testing.assert_allclose(ours.components_, signs[:, None] * theirs.components_, atol=1e-7)
    np.testing.assert_allclose(ours.transform(rows), theirs.transform(rows) * signs, atol=1e-8)
    np.testing.assert_allclose(
        ours.inverse_transform(ours.transform(rows)),
        theirs.inverse_transform(theirs.transform(rows)),
        atol=1e-8,
    )
    peaks = np.argmax(np.abs(ours.components_), axis=1)
    assert np.all(ours.components_[np.arange(count), peaks] > 0)


@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.95, 0.999])
def test_pca_keeps_as_many_as_scikit_learns(threshold, rows):
    theirs = sklearn.decomposition.PCA(threshold, svd_solver="full").fit(rows)
    ours = PCA(threshold).fit(rows)
    assert ours.n_components_ == theirs.n_components_
    full = sklearn.decomposition.PCA().fit(rows).explained_variance_
    assert ours.participation_ratio_ == pytest.approx(full.sum() ** 2 / np.sum(full**2), rel=1e-10)


def test_pca_of_nothing_that_varies():
    fitted = PCA().fit(np.zeros((4, 3)))
    assert fitted.participation_ratio_ is None
    assert fitted.n_components_ == 1
    np.testing.assert_array_equal(fitted.explained_variance_ratio_, [0])


def test_tower_accounts_for_its_levels(rows, ascend):
    text = "dct(8) > pca(0.9) > pca(0.9)"
    fitted = Tower(text, seed=3).fit(rows)
    assert fitted.levels_ == ascend(rows, text, seed=(3,)).levels
    lost = np.sum((rows - fitted.inverse_transform(fitted.transform(rows))) ** 2)
    assert fitted.levels_[-1].sse == pytest.approx(lost, rel=1e-9)
    marked = [level.level for level in fitted.levels_ if level.fixed_point]
    assert fitted.fixed_point_ == (marked[0] if marked else None)
    bits = [level.bits_per_weight for level in fitted.levels_]
    assert fitted.honest_level_ == bits.index(min(bits))
    assert Tower("dct(8)").fit(rows).fixed_point_ is None
    assert Tower("pca(1)").fit(rows).fixed_point_ == 0
