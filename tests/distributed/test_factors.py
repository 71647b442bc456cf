"""R factors answer as moments do, in any split, and keep what squaring loses."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rct_ray.transform.factors import (
    CoordinateFactors,
    MergeTree,
    block_moments,
    coordinate_factors,
    merge_tree,
    triangular_factor,
)
from rct_ray.transform.moments import coordinate_moments

values = st.floats(-1e3, 1e3, width=32)
matrices = st.tuples(st.integers(1, 14), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=values)
)


def close(found, wanted, scale):
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10 * max(scale, 1e-300))


def split(X, ends):
    return np.split(X, sorted(min(end, len(X)) for end in ends))


@given(matrices, st.lists(st.integers(0, 14), max_size=5))
@settings(deadline=None, max_examples=150)
def test_every_answer_is_that_of_the_moments(X, ends):
    factors = merge_tree([coordinate_factors(block) for block in split(X, ends)])
    moments = coordinate_moments(X)
    linear = np.linspace(-1, 1, 2 * X.shape[1]).reshape(X.shape[1], 2)
    scale = moments.energy
    assert factors.rows == moments.rows == len(X)
    close(factors.mean, moments.mean, np.abs(X).max())
    for of in (lambda m: m.scatter, lambda m: m.energy, lambda m: m.second_moment):
        close(of(factors), of(moments), scale)
    close(factors.squares_of(linear), moments.squares_of(linear), scale)
    close(factors.mapped(linear).scatter, moments.mapped(linear).scatter, scale)
    close(factors.mapped(linear).mean, moments.mapped(linear).mean, np.abs(X).max() * X.shape[1])
    for of in (lambda m: m.spectrum(), lambda m: m.spectrum_about_zero()):
        found, wanted = of(factors), of(moments)
        close(found.eigenvalues, wanted.eigenvalues, scale)
        assert found.components.shape == wanted.components.shape
        rebuilt = found.components.T * found.eigenvalues @ found.components
        close(rebuilt, wanted.components.T * wanted.eigenvalues @ wanted.components, scale)
        close(found.components @ found.components.T, np.eye(X.shape[1]), 1.0)


@given(matrices, st.lists(st.integers(0, 14), max_size=5))
@settings(deadline=None, max_examples=100)
def test_factor_is_the_triangle_of_the_centred_rows(X, ends):
    factors = merge_tree([coordinate_factors(block) for block in split(X, ends)])
    rows, width = factors.factor.shape
    assert width == X.shape[1]
    assert rows <= width
    assert rows == width or len(X) < width
    assert np.array_equal(factors.factor, np.triu(factors.factor))
    assert (np.diagonal(factors.factor) >= 0).all()
    singular = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    found = np.linalg.svd(factors.factor, compute_uv=False)
    shared = min(len(singular), len(found))
    top = max(singular[0], np.abs(X).max() * 1e-3, 1e-300)
    np.testing.assert_allclose(found[:shared], singular[:shared], rtol=0, atol=1e-12 * top)


@given(matrices, st.integers(0, 14), st.integers(0, 14))
@settings(deadline=None, max_examples=100)
def test_moments_of_blocks_merge_to_those_of_all_rows(X, first, second):
    origin = X[0]
    parts = [block_moments(block, origin) for block in split(X, (first, second))]
    found, wanted = merge_tree(parts), coordinate_moments(X)
    close(found.mean + origin, wanted.mean, np.abs(X).max())
    close(found.scatter, wanted.scatter, wanted.energy)
    assert np.array_equal(found.scatter, found.scatter.T)
    alone = block_moments(X)
    close(alone.mean, wanted.mean, np.abs(X).max())
    close(alone.scatter, wanted.scatter, wanted.energy)


def test_small_directions_survive():
    rng = np.random.default_rng(0)
    wanted = np.geomspace(1, 1e-12, 12)
    U = np.linalg.qr(rng.standard_normal((3000, 13)) - 0.0).Q
    U = np.linalg.qr(U - U.mean(axis=0)).Q[:, :12]
    X = U * wanted @ np.linalg.qr(rng.standard_normal((12, 12))).Q
    found = np.sqrt(merge_tree([coordinate_factors(b) for b in np.split(X, 6)]).spectrum().eigenvalues)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found[:-2], wanted[:-2], rtol=1e-4)
    squared = coordinate_moments(X).spectrum().eigenvalues
    assert abs(np.sqrt(squared[-2]) / wanted[-2] - 1) > 0.1


@pytest.mark.parametrize("mean", [1e4, 1e8])
def test_shared_origin_keeps_huge_means_out(mean):
    rng = np.random.default_rng(0)
    X = mean + rng.standard_normal((500, 6)) + np.arange(500)[:, None] / 100
    exact = np.linalg.svd(X - mean - (X - mean).mean(axis=0), compute_uv=False)
    origin = X[:50].mean(axis=0)
    blocks = np.split(X, [1, 40, 200])
    for of, tolerance in ((coordinate_factors, 1e-14), (block_moments, 1e-12)):
        found = merge_tree([of(block, origin) for block in blocks])
        error = np.abs(np.sqrt(found.spectrum().eigenvalues) - exact).max() / exact[0]
        assert error < tolerance


def test_several_chunks_and_a_basis():
    rng = np.random.default_rng(3)
    X, basis = rng.standard_normal((5000, 9)) + 5, rng.standard_normal((9, 4))
    found, wanted = coordinate_factors(X, X[0], basis), coordinate_moments((X - X[0]) @ basis)
    np.testing.assert_allclose(found.scatter, wanted.scatter, rtol=1e-11)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-11)
    np.testing.assert_allclose(coordinate_factors(X, None, basis).mean, X.mean(axis=0) @ basis, rtol=1e-11)
    wide = rng.standard_normal((300, 1500))
    np.testing.assert_allclose(block_moments(wide).scatter, coordinate_moments(wide).scatter, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_are_taken_as_stored(dtype):
    X = (3 + np.random.default_rng(0).standard_normal((100, 4))).astype(dtype)
    wanted = coordinate_moments(X.astype(np.float64))
    for found in (coordinate_factors(X), block_moments(X)):
        np.testing.assert_allclose(found.scatter, wanted.scatter, rtol=1e-13)
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-14)


def test_no_rows_and_one():
    empty, one = coordinate_factors(np.empty((0, 3))), coordinate_factors(np.array([[1.0, 2, 3]]))
    assert empty.rows == 0
    assert empty.merge(one) is one
    assert one.merge(empty) is one
    assert empty.merge(empty).rows == 0
    assert one.energy == 14
    np.testing.assert_array_equal(one.scatter, np.zeros((3, 3)))
    assert block_moments(np.empty((0, 3))).rows == 0
    assert np.array_equal(triangular_factor(np.zeros((2, 3))), np.zeros((2, 3)))


def test_leading_columns_that_depend_lose_no_row():
    # A zero first column makes R need more rows than the rank: none may be cut off.
    X = np.zeros((3, 6))
    X[:, 2:] = np.random.default_rng(0).standard_normal((3, 4))
    found = merge_tree([coordinate_factors(row[None]) for row in X])
    np.testing.assert_allclose(found.scatter, coordinate_moments(X).scatter, atol=1e-14)


@pytest.mark.parametrize(
    ("heights", "width"),
    [
        ((3,) * 6 + (2,), 10), ((8, 4, 8), 10), ((15, 5, 5, 8, 7), 10), ((16,) * 8, 2), ((16,) * 8 + (1,), 2),
        ((16,) * 8 + (2,), 2), ((16,) * 8 + (3,), 2), ((40,) * 7 + (20,), 10), ((30,) * 10, 10),
        ((20,) * 15, 10), ((5,), 10), ((10,), 10), ((4, 0, 1, 0, 5), 5), ((0, 0, 3), 5), ((1,) * 7, 3),
    ],
)  # fmt: skip
def test_shapes_of_dask_test_tsqr(heights, width):
    X = np.random.default_rng(sum(heights)).standard_normal((sum(heights), width))
    blocks = np.split(X, np.cumsum(heights)[:-1])
    found = merge_tree([coordinate_factors(block) for block in blocks]).spectrum().eigenvalues
    wanted = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.sqrt(found)[: len(wanted)], wanted, rtol=0, atol=1e-13 * wanted[0])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7])
def test_tree_depends_on_numbers_not_on_arrival(count):
    rng = np.random.default_rng(count)
    items = [coordinate_factors(rng.standard_normal((5, 3))) for _ in range(count)]
    wanted = merge_tree(items)
    for order in itertools.islice(itertools.permutations(range(count)), 0, 5040, 7):
        tree = MergeTree(count)
        for index in order:
            tree.add(index, items[index])
        found = tree.result()
        assert found.factor.tobytes() == wanted.factor.tobytes()
        assert found.mean.tobytes() == wanted.mean.tobytes()


def test_tree_is_binary_and_holds_little():
    class Named:
        rows = 1

        def __init__(self, name):
            self.name = name

        def merge(self, other):
            return Named(f"({self.name}{other.name})")

    assert merge_tree([Named(c) for c in "abcde"]).name == "(((ab)(cd))e)"
    assert merge_tree([Named(c) for c in "abcdef"]).name == "(((ab)(cd))(ef))"
    tree, most = MergeTree(1000), 0
    for index in range(1000):
        tree.add(index, Named("x"))
        most = max(most, len(tree._waiting))
    assert most <= 10
    assert tree.result().name.count("x") == 1000


def test_tree_refuses_what_is_not_whole():
    with pytest.raises(ValueError, match="not all of 3"):
        MergeTree(3).result()
    tree = MergeTree(3)
    tree.add(0, CoordinateFactors(0, np.zeros(1), np.zeros((0, 1))))
    with pytest.raises(ValueError, match="not all of 3"):
        tree.result()
    with pytest.raises(ValueError, match="not all of 0"):
        merge_tree([])


def test_signs_are_those_of_the_eigendecomposition():
    X = np.random.default_rng(1).standard_normal((200, 5)) * [5, 4, 3, 2, 1]
    found, wanted = coordinate_factors(X).spectrum(), coordinate_moments(X).spectrum()
    np.testing.assert_allclose(found.components, wanted.components, atol=1e-12)
    assert (found.components[np.arange(5), np.abs(found.components).argmax(axis=1)] > 0).all()
    assert (np.diff(found.eigenvalues) <= 0).all()
