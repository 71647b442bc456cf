"""Fixed bases: orthonormal frames, the functions themselves, and their amplitudes."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from rct_ray.transform.basis import (
    dct_basis,
    default_components,
    gaussian_basis,
    gaussian_functions,
    haar_basis,
    orthonormalise,
    random_basis,
)

MAKERS = {"gaussian": gaussian_basis, "dct": dct_basis, "haar": haar_basis, "random": random_basis}
SHAPES = [(1, 1), (2, 1), (2, 2), (3, 2), (7, 7), (16, 5), (63, 63), (64, 64), (100, 1), (256, 8), (257, 9)]

# Any K of any d up to 80 columns.
shapes = st.integers(1, 80).flatmap(lambda width: st.tuples(st.just(width), st.integers(1, width)))


def haar_matrix(width):
    """The textbook's recursion for powers of two, coarsest rows first."""
    if width == 1:
        return np.ones((1, 1))
    half = haar_matrix(width // 2)
    return np.vstack([np.kron(half, [1, 1]), np.kron(np.eye(width // 2), [1, -1])]) / np.sqrt(2)


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=60)
@given(shape=shapes)
def test_frame_is_orthonormal_and_spans_the_functions(name, slow_functions, shape):
    width, count = shape
    basis = MAKERS[name](width, count)
    assert basis.frame.shape == (width, count)
    np.testing.assert_allclose(basis.frame.T @ basis.frame, np.eye(count), atol=1e-13)
    np.testing.assert_allclose(basis.functions, slow_functions[name](width, count), atol=1e-13)


@pytest.mark.parametrize(("width", "count"), SHAPES)
def test_gaussians_are_the_formula(width, count, slow_functions):
    np.testing.assert_allclose(
        gaussian_functions(width, count), slow_functions["gaussian"](width, count), atol=1e-15
    )


def test_gaussian_width_scales_sigma():
    centre = gaussian_functions(101, 1, 0.25)[0]
    assert centre[0] == 1
    assert centre[25] == pytest.approx(np.exp(-0.5 * (25 / 25.25) ** 2), rel=1e-15)


def test_eight_gaussians_of_256_columns_are_the_seeds():
    functions = gaussian_functions(256, 8)
    assert functions[7, 255] == 1
    assert functions[0, 32] == pytest.approx(np.exp(-0.5), rel=1e-15)
    assert functions[1, 0] == pytest.approx(np.exp(-0.5 * (255 / 7 / 32) ** 2), rel=1e-14)


@pytest.mark.parametrize(("width", "count"), SHAPES)
def test_mixing_is_upper_triangular_with_positive_diagonal(width, count):
    mixing = gaussian_basis(width, count).mixing
    np.testing.assert_array_equal(mixing, np.triu(mixing))
    assert np.all(np.diag(mixing) > 0)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("width", "count"), SHAPES)
def test_amplitudes_are_least_squares(name, width, count):
    basis = MAKERS[name](width, count)
    rows = np.random.default_rng(width).standard_normal((5, width))
    amplitudes = rows @ basis.frame @ basis.unmixing()
    np.testing.assert_allclose(amplitudes, np.linalg.lstsq(basis.functions.T, rows.T)[0].T, atol=1e-11)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 31, 256])
def test_dct_is_scipys(width):
    rows = np.random.default_rng(width).standard_normal((4, width))
    np.testing.assert_allclose(
        rows @ dct_basis(width, width).frame, scipy.fft.dct(rows, norm="ortho"), atol=1e-13
    )
    np.testing.assert_array_equal(dct_basis(width, 1).frame, dct_basis(width, width).frame[:, :1])


@pytest.mark.parametrize("width", [1, 2, 4, 8, 64, 256])
def test_haar_is_the_textbooks_for_powers_of_two(width):
    np.testing.assert_allclose(haar_basis(width, width).frame.T, haar_matrix(width), atol=1e-14)


@pytest.mark.parametrize("width", range(1, 40))
def test_haar_is_complete_at_any_width(width):
    frame = haar_basis(width, width).frame
    np.testing.assert_allclose(frame @ frame.T, np.eye(width), atol=1e-13)


@settings(deadline=None, max_examples=40)
@given(shape=shapes)
def test_fewer_haar_steps_are_the_coarsest_of_more(shape):
    width, count = shape
    np.testing.assert_array_equal(haar_basis(width, count).frame, haar_basis(width, width).frame[:, :count])


def test_haar_splits_the_longest_interval_first():
    frame = haar_basis(5, 4).frame
    # 5 = 3 + 2, then 3 = 2 + 1 before 2 = 1 + 1.
    np.testing.assert_array_equal(np.sign(frame[:, 1]), [1, 1, 1, -1, -1])
    np.testing.assert_array_equal(np.sign(frame[:, 2]), [1, 1, -1, 0, 0])
    np.testing.assert_array_equal(np.sign(frame[:, 3]), [0, 0, 0, 1, -1])


@pytest.mark.parametrize("relative_width", [30.0, 1000.0])
def test_wide_gaussians_have_a_frame_but_no_amplitudes(relative_width):
    basis = gaussian_basis(256, 8, relative_width)
    np.testing.assert_allclose(basis.frame.T @ basis.frame, np.eye(8), atol=1e-13)
    np.testing.assert_allclose(basis.functions, gaussian_functions(256, 8, relative_width), atol=1e-13)
    with pytest.raises(ValueError, match="8 basis functions are nearly dependent"):
        basis.unmixing()


def test_gaussians_that_miss_every_column_have_no_amplitudes():
    basis = gaussian_basis(256, 8, 1e-4)
    np.testing.assert_allclose(basis.frame.T @ basis.frame, np.eye(8), atol=1e-13)
    with pytest.raises(ValueError, match="nearly dependent"):
        basis.unmixing()


def test_orthonormalise_turns_negative_diagonals():
    basis = orthonormalise(np.array([[-2.0, 0, 0], [1, -3, 0]]))
    np.testing.assert_allclose(basis.frame.T, [[-1, 0, 0], [0, -1, 0]], atol=1e-15)
    np.testing.assert_allclose(basis.mixing, [[2, -1], [0, 3]], atol=1e-15)


@pytest.mark.parametrize(("width", "count"), [(1, 1), (15, 1), (64, 2), (256, 8), (260, 8), (1024, 32)])
def test_default_components(width, count):
    assert default_components(width) == count


def test_random_directions_are_the_same_at_every_call_and_others_at_every_width():
    frame = random_basis(64, 8).frame
    np.testing.assert_array_equal(random_basis(64, 8).frame, frame)
    np.testing.assert_allclose(random_basis(64, 5).frame, frame[:, :5], atol=1e-14)
    assert np.abs(random_basis(65, 8).frame[:64] - frame).max() > 0.1


def test_random_directions_favour_no_column():
    energy = np.sum(random_basis(512, 256).frame ** 2, axis=1)
    assert energy.mean() == pytest.approx(0.5)
    # Of one column: the mean of 256 of 512 shares that sum to 1, whose deviation is about sqrt(2 / 512) / 2.
    assert np.abs(energy - 0.5).max() < 5 * 0.5 * np.sqrt(2 / 512)
