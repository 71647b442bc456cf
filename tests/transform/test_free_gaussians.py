"""Free and shared Gaussians against scipy, planted answers, finite differences and generated input."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import approx_fprime, curve_fit, least_squares
from sklearn.utils.estimator_checks import parametrize_with_checks

from rct_ray.transform.basis import gaussian_basis, gaussian_functions
from rct_ray.transform.curve_fit import fit_curve_fit
from rct_ray.transform.free_estimator import FreeGaussians
from rct_ray.transform.free_gaussians import (
    FreeFit,
    amplitudes_at,
    decode_gaussians,
    fit_free,
    parameter_bounds,
)
from rct_ray.transform.gaussian_pursuit import pursue
from rct_ray.transform.levenberg_marquardt import Slopes, minimise
from rct_ray.transform.projected_gaussians import measure_rows
from rct_ray.transform.shared_gaussians import energy_kept, fit_shared, measure_moments


def model(places, *parameters):
    """One row, written down again: amplitudes, centres, widths."""
    amplitudes, centres, widths = np.split(np.asarray(parameters), 3)
    return sum(
        a * np.exp(-((places - c) ** 2) / (2 * s * s))
        for a, c, s in zip(amplitudes, centres, widths, strict=True)
    )


def projected_sse(row, parameters):
    """What the best amplitudes leave of a row, by QR."""
    centres, log_widths = np.split(np.asarray(parameters), 2)
    places = np.arange(len(row))[:, None]
    frame = np.linalg.qr(np.exp(-0.5 * ((places - centres) / np.exp(log_widths)) ** 2))[0]
    left = row - frame @ (frame.T @ row)
    return left @ left


def fixed_sse(rows, count):
    """What the fixed basis leaves of rows."""
    frame = gaussian_basis(rows.shape[1], count).frame
    return np.sum((rows - rows @ frame @ frame.T) ** 2, axis=1)


@pytest.fixture
def rows(coloured):
    return coloured(24, 60)


def finite(fit):
    return all(np.all(np.isfinite(part)) for part in (fit.amplitudes, fit.centres, fit.widths, fit.sse))


def test_slopes_by_finite_differences(rows):
    row = rows[0] / np.linalg.norm(rows[0])
    at = np.array([4.0, 21.5, 40.0, 66.0, *np.log([2.0, 6.0, 1.3, 9.0])])
    slopes = measure_rows(row[None], at[None, :4], at[None, 4:])
    assert slopes.sse[0] == pytest.approx(projected_sse(row, at), rel=1e-12)
    gradient = approx_fprime(at, lambda here: projected_sse(row, here), 1e-7)
    # Forward differences of step 1e-7 are good to about that.
    np.testing.assert_allclose(-2 * slopes.descent[0], gradient, atol=1e-6)

    def descent(here):
        return measure_rows(row[None], here[None, :4], here[None, 4:]).descent[0]

    np.testing.assert_allclose(slopes.newton[0], -approx_fprime(at, descent, 1e-7), atol=1e-6)


def test_kaufmans_jacobian(rows):
    row = rows[1] / np.linalg.norm(rows[1])
    at = np.array([10.0, 30.0, 44.0, *np.log([3.0, 5.0, 2.0])])
    slopes = measure_rows(row[None], at[None, :3], at[None, 3:])

    def functions(here):
        centres, log_widths = np.split(here, 2)
        return np.exp(-0.5 * ((np.arange(60) - centres[:, None]) / np.exp(log_widths)[:, None]) ** 2)

    frame = np.linalg.qr(functions(at).T)[0]
    amplitudes = np.linalg.lstsq(functions(at).T, row)[0]
    change = approx_fprime(at, lambda here: amplitudes @ functions(here), 1e-7)
    jacobian = change - frame @ (frame.T @ change)
    np.testing.assert_allclose(slopes.amplitudes[0], amplitudes, rtol=1e-10)
    np.testing.assert_allclose(slopes.gauss_newton[0], jacobian.T @ jacobian, atol=1e-6)


def test_slopes_of_moments_are_the_sums_of_those_of_rows(rows):
    W = rows / np.linalg.norm(rows)
    centres, log_widths = np.array([3.0, 11.0, 20.5, 53.0]), np.log([2.0, 5.0, 3.0, 8.0])
    each = measure_rows(W, np.tile(centres, (24, 1)), np.tile(log_widths, (24, 1)))
    together = measure_moments(W.T @ W, centres, log_widths)
    for name in ("sse", "descent", "gauss_newton", "newton"):
        np.testing.assert_allclose(
            getattr(together, name)[0], getattr(each, name).sum(axis=0), atol=1e-14, rtol=1e-10
        )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_planted_gaussians_are_found(count):
    generator = np.random.default_rng(count)
    shape = (40, count)
    centres = np.linspace(15, 80, count) + generator.uniform(-4, 4, shape)
    widths = generator.uniform(1.5, 5, shape)
    amplitudes = generator.choice([-1, 1], shape) * generator.uniform(0.5, 2, shape)
    planted = decode_gaussians(amplitudes, centres, widths, 97)
    found = fit_free(planted, count)
    assert np.all(found.converged)
    assert np.all(found.sse <= 1e-20 * np.sum(planted**2, axis=1))
    order = np.argsort(found.centres, axis=1)
    for part, truth in ((found.centres, centres), (found.widths, widths), (found.amplitudes, amplitudes)):
        np.testing.assert_allclose(np.take_along_axis(part, order, 1), truth, rtol=1e-8)


def test_a_wide_planted_fit_needs_the_given_start():
    # Gaussians as wide as their spacing: the pursuit alone would take one for two.
    centres, widths = np.array([5.0, 22.0, 41.0, 58.0]), np.array([16.0, 14.0, 17.0, 15.0])
    planted = decode_gaussians(np.array([[1.0, -2.0, 1.5, 0.7]]), centres[None], widths[None], 64)
    found = fit_free(planted, 4, max_iterations=300)
    assert found.sse[0] <= 1e-12 * np.sum(planted**2)


def test_no_worse_than_curve_fit():
    W = np.random.default_rng(2).standard_normal((16, 48))
    places, ours, theirs = np.arange(48.0), fit_free(W, 2), []
    for row in W:
        start = [*row @ np.linalg.pinv(gaussian_functions(48, 2)), 0.0, 47.0, 24.0, 24.0]
        try:
            with warnings.catch_warnings(action="ignore"):  # of covariances
                fitted = curve_fit(model, places, row, p0=start, maxfev=3000)[0]
        except RuntimeError:
            fitted = start
        theirs.append(np.sum((row - model(places, *fitted)) ** 2))
    assert np.all(ours.converged)
    assert np.mean(ours.sse <= np.array(theirs) * (1 + 1e-6)) >= 0.9


def test_local_minima_are_those_of_least_squares(rows):
    # From where ours ends, an independent bounded search finds nothing lower nearby.
    ours = fit_free(rows[:6], 3, tolerance=1e-10)
    lower, upper = parameter_bounds(60, 3)
    for row, a, c, s, sse in zip(rows, ours.amplitudes, ours.centres, ours.widths, ours.sse, strict=False):
        bounds = (
            np.r_[np.full(3, -np.inf), lower[:3], np.exp(lower[3:]) * (1 - 1e-9)],
            np.r_[np.full(3, np.inf), upper[:3], np.exp(upper[3:]) * (1 + 1e-9)],
        )
        first = np.clip(np.r_[a, c, s], *bounds)
        again = least_squares(lambda p, row=row: model(np.arange(60.0), *p) - row, first, bounds=bounds)
        assert 2 * again.cost >= sse * (1 - 1e-6)


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize(("count", "width"), [(1, 1), (1, 9), (3, 3), (4, 40), (40, 40), (2, 300)])
def test_never_worse_than_the_fixed_basis_and_within_bounds(search, count, width, coloured):
    W = coloured(7, width)
    fit = fit_free(W, count, search=search, max_iterations=30)
    assert finite(fit)
    assert np.all(fit.sse <= fixed_sse(W, count) * (1 + 1e-9) + 1e-12 * np.sum(W**2))
    np.testing.assert_allclose(np.sum((W - fit.decode(width)) ** 2, axis=1), fit.sse, atol=1e-20)
    lower, upper = parameter_bounds(width, count)
    at = np.hstack([fit.centres, np.log(fit.widths)])
    assert np.all((at >= lower - 1e-12) & (at <= upper + 1e-12))


def test_a_start_of_ones_own(rows):
    centres, widths = np.array([10.0, 50.0]), np.array([3.0, 4.0])
    fit = fit_free(rows, 2, start=(centres, widths), search=False, max_iterations=0)
    np.testing.assert_allclose(fit.centres, np.tile(centres, (24, 1)), rtol=1e-15)
    np.testing.assert_allclose(fit.widths, np.tile(widths, (24, 1)), rtol=1e-15)
    wider = (np.tile(centres, (24, 1)), np.tile(widths, (24, 1)))
    np.testing.assert_allclose(fit.amplitudes, amplitudes_at(rows, *wider))
    assert not np.any(fit.converged)
    assert np.all(fit_free(rows, 2, start=wider).sse <= fit.sse)


def test_more_steps_never_lose(rows):
    last = np.inf
    for steps in (0, 1, 2, 4, 8, 16, 32):
        fit = fit_free(rows, 3, search=False, max_iterations=steps)
        assert np.all(fit.sse <= last * (1 + 1e-12))
        assert np.all(fit.iterations <= steps)
        last = fit.sse


def test_deterministic_and_of_each_row_alone(rows):
    rows = rows[:12]
    fit, again = fit_free(rows, 3), fit_free(rows, 3)
    for name in ("amplitudes", "centres", "widths", "sse", "iterations"):
        np.testing.assert_array_equal(getattr(fit, name), getattr(again, name))
    apart = FreeFit.joined([fit_free(part, 3) for part in np.split(rows, [1, 5])])
    np.testing.assert_allclose(apart.sse, fit.sse, rtol=1e-6)
    empty = fit_free(rows[:0], 4)
    assert empty.amplitudes.shape == (0, 4)
    assert empty.decode(60).shape == (0, 60)


def test_gaussians_that_coincide_share_their_amplitude(rows):
    at = np.full((24, 2), 20.0), np.full((24, 2), 4.0)
    fit = fit_free(rows, 2, start=at, search=False, max_iterations=0)
    # The ridge that parts them is not far above rounding.
    np.testing.assert_allclose(fit.amplitudes[:, 0], fit.amplitudes[:, 1], rtol=0.2)
    one = fit_free(rows, 1, start=(at[0][:, :1], at[1][:, :1]), search=False, max_iterations=0)
    np.testing.assert_allclose(fit.sse, one.sse, rtol=1e-8)


def test_the_pursuit_takes_the_best_first():
    W = decode_gaussians(np.array([[0.5, -3.0]]), np.array([[12.0, 50.0]]), np.array([[4.2, 2.3]]), 80)
    centres, log_widths = pursue(W, 2)
    np.testing.assert_allclose(centres, [[50, 12]], atol=1)
    np.testing.assert_allclose(np.exp(log_widths), [[2.3, 4.2]], rtol=0.5)


def test_minimise_holds_a_bound_and_says_where_it_stopped():
    # sse = (x - 3)^2 + (y + 1)^2 with y >= 0.
    def measure(index, at):
        off = at - np.array([3.0, -1.0])
        curvature = np.tile(np.eye(2), (len(at), 1, 1))
        return Slopes(
            np.sum(off**2, axis=1), at[:, :1], -off, curvature, curvature.copy(), np.full_like(at, 5.0)
        )

    found = minimise(
        measure,
        np.array([[0.0, 2.0], [9.0, 0.0]]),
        np.array([-10.0, 0.0]),
        np.array([10.0, 10.0]),
        max_iterations=60,
        tolerance=1e-12,
    )
    assert np.all(found.converged)
    np.testing.assert_allclose(found.parameters, [[3, 0], [3, 0]], atol=1e-5)


SIZES = st.tuples(st.integers(1, 4), st.integers(1, 24))
ENTRIES = st.one_of(st.floats(-1, 1, allow_subnormal=False), st.sampled_from([0.0, 1.0, -1.0, 1e-9, 0.5]))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_anything_finite_is_fitted(data):
    n, d = data.draw(SIZES)
    W = data.draw(arrays(np.float64, (n, d), elements=ENTRIES))
    kind = data.draw(st.sampled_from(["as drawn", "rank one", "constant", "zeros", "one spike"]))
    if kind == "rank one":
        W = np.outer(np.arange(1, n + 1), W[0])
    elif kind == "constant":
        W = np.full((n, d), W[0, 0])
    elif kind == "zeros":
        W = np.zeros((n, d))
    elif kind == "one spike":
        W = np.eye(n, d)
    W = W * data.draw(st.sampled_from([1e-20, 1e-5, 1.0, 1e5, 1e20]))
    count = data.draw(st.integers(1, d))
    fit = fit_free(W, count, max_iterations=40)
    assert finite(fit)
    energy = np.sum(W**2, axis=1)
    assert np.all(fit.sse <= fixed_sse(W, count) * (1 + 1e-7) + 1e-11 * energy)
    nothing = ~W.any(axis=1)
    assert np.all(fit.converged[nothing])
    assert np.all(fit.amplitudes[nothing] == 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1), st.sampled_from([1e-20, 1.0, 1e20]), st.data())
def test_shared_gaussians_keep_no_less_than_their_start(d, seed, scale, data):
    generator = np.random.default_rng(seed)
    rank = data.draw(st.integers(0, d))
    count = data.draw(st.integers(1, d))
    W = scale * generator.standard_normal((rank, d))
    H = W.T @ W
    start = np.sort(generator.uniform(0, d, count)), generator.uniform(0.5, d + 0.5, count)
    for given_start in (None, start):
        centres, widths = fit_shared(H, count, start=given_start)
        if given_start is None:
            given_start = np.linspace(0, d - 1, count), np.full(count, d / count)
        assert np.all(np.isfinite(centres))
        assert np.all(widths > 0)
        assert np.all(np.diff(centres) >= 0)
        before = energy_kept(H, *given_start)
        assert energy_kept(H, centres, widths) >= before - 1e-12 * np.trace(H)


def test_shared_gaussians_are_found_where_they_were_planted():
    generator = np.random.default_rng(5)
    centres, widths = np.array([9.0, 30.0, 44.0]), np.array([3.0, 8.0, 2.0])
    functions = np.exp(-0.5 * ((np.arange(64) - centres[:, None]) / widths[:, None]) ** 2)
    W = generator.standard_normal((200, 3)) @ functions
    found, spread = fit_shared(W.T @ W, 3)
    np.testing.assert_allclose(found, centres, atol=1e-5)
    np.testing.assert_allclose(spread, widths, rtol=1e-5)


def test_shared_gaussians_improve_on_noise_less_than_rows_of_their_own(rows):
    W = rows
    H = W.T @ W
    centres, widths = fit_shared(H, 3)
    shared = np.trace(H) - energy_kept(H, centres, widths)
    assert np.sum(fit_free(W, 3).sse) < shared < np.sum(fixed_sse(W, 3))


class TestCurveFit:
    def test_is_scipys(self, rows):
        planted = decode_gaussians(
            np.array([[1.0, -2.0]]), np.array([[9.0, 43.0]]), np.array([[9.0, 12.0]]), 60
        )
        W = planted + rows[:1]
        fit = fit_curve_fit(W, 2, maxfev=5000)
        start = [*W[0] @ np.linalg.pinv(gaussian_functions(60, 2)), 0.0, 59.0, 30.0, 30.0]
        theirs = curve_fit(model, np.arange(60.0), W[0], p0=start, maxfev=5000)[0]
        assert fit.converged[0]
        np.testing.assert_allclose(
            [*fit.amplitudes[0], *fit.centres[0], *fit.widths[0]], theirs, rtol=1e-4, atol=1e-4
        )

    def test_a_row_that_fails_keeps_its_start(self, rows):
        fit = fit_curve_fit(rows, 3, maxfev=8)
        assert not np.any(fit.converged)
        np.testing.assert_array_equal(fit.centres, np.tile(np.linspace(0, 59, 3), (24, 1)))
        np.testing.assert_allclose(fit.sse, fixed_sse(rows, 3), rtol=1e-9)
        bad = fit_curve_fit(rows, 3, maxfev=8, amplitudes=np.full((24, 3), 9.0))
        assert np.all(bad.sse > np.sum(rows**2, axis=1))

    @pytest.mark.parametrize("W", [np.zeros((2, 9)), np.ones((2, 9)), np.full((2, 9), 1e200), np.eye(2, 9)])
    def test_never_raises(self, W):
        for count in (1, 3, 4):
            fit = fit_curve_fit(W, count, maxfev=200)
            assert finite(
                FreeFit(fit.amplitudes, fit.centres, fit.widths, fit.iterations, *[fit.converged] * 2)
            )


@parametrize_with_checks([FreeGaussians(), FreeGaussians(method="curve_fit", max_iterations=5)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_the_estimator(rows):
    fitted = FreeGaussians(3).fit(rows)
    codes = fitted.transform(rows)
    free = fit_free(rows, 3)
    np.testing.assert_array_equal(codes, np.hstack([free.amplitudes, free.centres, free.widths]))
    np.testing.assert_allclose(
        np.sum((rows - fitted.inverse_transform(codes)) ** 2, axis=1), free.sse, rtol=1e-12
    )
    assert len(fitted.get_feature_names_out()) == 9
    assert fitted.fit_rows(rows).converged.dtype == bool
    slow = FreeGaussians(3, method="curve_fit", max_iterations=10).fit(rows)
    assert slow.transform(rows).shape == (24, 9)
    assert not np.any(slow.fit_rows(rows).converged)


@pytest.mark.parametrize(
    ("estimator", "match"),
    [
        (FreeGaussians(0), "n_components must be from 1 to the 60 columns, not 0"),
        (FreeGaussians(61), "not 61"),
        (FreeGaussians(method="guess"), "method must be"),
        (FreeGaussians(max_iterations=0), "max_iterations must be"),
    ],
)
def test_bad_parameters(estimator, match, rows):
    with pytest.raises(ValueError, match=match):
        estimator.fit(rows)
