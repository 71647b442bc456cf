"""Orders of columns: what they keep, against swaps tried one by one, and what they are charged."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rct_ray.transform.basis import gaussian_basis
from rct_ray.transform.encode import Encoder
from rct_ray.transform.ordering import place_columns
from rct_ray.transform.stages import PlacedGaussianStage
from rct_ray.transform.tower import tower
from rct_ray.transform.tower_language import TowerSyntaxError, format_tower, parse_tower


def kept(H, frame, placing):
    """By the columns really moved."""
    moved = placing.moments(H)
    return float(np.trace(frame.T @ moved @ frame))


def squares(seed, rows, width):
    W = np.random.default_rng(seed).standard_normal((rows, width))
    return W.T @ W


@given(
    width=st.integers(1, 70),
    rows=st.integers(1, 90),
    seed=st.integers(0, 99),
    signed=st.booleans(),
    order=st.sampled_from(["none", "svd", "assign"]),
)
@settings(max_examples=60, deadline=None)
def test_any_order_is_a_signed_permutation(width, rows, seed, signed, order):
    H = squares(seed, rows, width)
    frame = gaussian_basis(width, max(1, width // 8)).frame
    placing, again = place_columns([H, H], frame, order, signed=signed)
    assert sorted(placing.places) == list(range(width))
    assert set(placing.signs) <= {1.0, -1.0}
    if not (signed and order == "assign"):
        assert set(placing.signs) == {1.0}
    functions = placing.functions(frame.T)
    np.testing.assert_allclose(functions @ functions.T, np.eye(len(functions)), atol=1e-12)
    np.testing.assert_allclose(np.trace(functions @ H @ functions.T), kept(H, frame, placing), rtol=1e-9)
    assert len(again.places) == width


@pytest.mark.parametrize("signed", [False, True])
def test_small_orders_are_among_the_best_of_all(signed):
    """Against every signed permutation of six columns."""
    shares = []
    for seed in range(3):
        H, frame = squares(seed, 9, 6), gaussian_basis(6, 2).frame
        best = 0.0
        for order in itertools.permutations(range(6)):
            for signs in itertools.product([1, -1], repeat=5 if signed else 0):
                turned = np.array([1, *signs] if signed else [1] * 6)
                moved = (H * np.outer(turned, turned))[np.ix_(order, order)]
                best = max(best, float(np.vdot(frame, moved @ frame)))
        (placing,) = place_columns([H], frame, "assign", signed=signed)
        shares.append(kept(H, frame, placing) / best)
    assert max(shares) <= 1 + 1e-9
    assert min(shares) > 0.95
    assert np.median(shares) > 0.985


@pytest.mark.parametrize(("width", "signed"), [(48, False), (48, True), (97, True)])
def test_a_planted_order_is_found(width, signed):
    """Smooth rows, their columns shuffled and some turned about: all of it can be had back."""
    generator = np.random.default_rng(1)
    frame = gaussian_basis(width, 3).frame
    smooth = generator.standard_normal((200, 3)) @ frame.T
    signs = np.where(generator.random(width) < 0.5, -1.0, 1.0) if signed else np.ones(width)
    W = smooth[:, generator.permutation(width)] * signs
    H = W.T @ W
    (placing,) = place_columns([H], frame, "assign", signed=signed)
    assert kept(H, frame, placing) > 0.985 * np.trace(H)
    (unordered,) = place_columns([H], frame, "none", signed=False)
    assert kept(H, frame, unordered) < 0.5 * np.trace(H)


def test_no_swap_of_two_columns_is_left_that_gains_much():
    H, frame = squares(5, 60, 64), gaussian_basis(64, 4).frame
    (placing,) = place_columns([H], frame, "assign", signed=True)
    Y = frame[placing.places] * placing.signs[:, None]
    base = float(np.vdot(Y, H @ Y))
    gains = []
    for i, j in itertools.combinations(range(64), 2):
        for a, b in itertools.product([1, -1], repeat=2):
            swapped = Y.copy()
            swapped[i], swapped[j] = a * Y[j], b * Y[i]
            gains.append(float(np.vdot(swapped, H @ swapped)) - base)
    assert max(gains) < 2e-3 * base


def test_signs_and_search_keep_more():
    H, frame = squares(7, 300, 96) + 40 * squares(8, 3, 96), gaussian_basis(96, 3).frame
    by = {
        (order, signed): kept(H, frame, place_columns([H], frame, order, signed=signed)[0])
        for order, signed in (("none", False), ("svd", False), ("assign", False), ("assign", True))
    }
    assert list(by.values()) == sorted(by.values())
    assert by["assign", True] <= np.linalg.eigvalsh(H)[-3:].sum()


def test_scale_does_not_matter():
    H, frame = squares(9, 50, 40), gaussian_basis(40, 3).frame
    plain, tiny, huge = (
        place_columns([H * scale], frame, "assign", signed=True)[0] for scale in (1.0, 2.0**-300, 2.0**300)
    )
    for other in (tiny, huge):
        np.testing.assert_array_equal(plain.places, other.places)
        np.testing.assert_array_equal(plain.signs, other.signs)


@pytest.mark.parametrize("H", [np.zeros((20, 20)), np.ones((20, 20)), np.diag([1.0] + [0.0] * 19)])
def test_matrices_with_nothing_to_order(H):
    frame = gaussian_basis(20, 2).frame
    (placing,) = place_columns([H], frame, "assign", signed=True)
    assert sorted(placing.places) == list(range(20))
    assert math.isfinite(kept(H, frame, placing))


def test_an_order_is_charged_as_many_bits_as_naming_it_takes():
    H, frame = squares(0, 40, 32), gaussian_basis(32, 1).frame
    (plain,) = place_columns([H], frame, "assign", signed=False)
    (signed,) = place_columns([H], frame, "assign", signed=True)
    assert plain.side_bits == pytest.approx(math.log2(math.factorial(32)))
    assert signed.side_bits == pytest.approx(math.log2(math.factorial(32)) + 32)


@pytest.mark.parametrize("metric", ["isometric", "amplitude"])
@pytest.mark.parametrize(
    "options",
    ["order=svd", "order=assign", "order=assign, signs=no", "fit=shared", "order=assign, fit=shared"],
)
def test_figures_are_those_of_the_weights_rebuilt(metric, options):
    generator = np.random.default_rng(2)
    W = generator.standard_normal((80, 40)) @ generator.standard_normal((40, 40)) + 0.3
    stages = parse_tower(f"gaussian(K=5, {options}) > pca(0.9) > pca(0.8)")
    ascent = tower(Encoder(None, columns=True).encode(W), 40, stages, metric)
    codes, rebuilt = W, lambda code: code
    for rung, level in zip(ascent.rungs, ascent.levels[1:], strict=True):
        step, below = rung.step, rebuilt
        codes = (codes - step.mean) @ step.encoder
        rebuilt = lambda code, step=step, below=below: below(code @ step.decoder + step.mean)  # noqa: E731
        sse = float(np.sum((W - rebuilt(codes)) ** 2))
        assert level.sse == pytest.approx(sse, rel=1e-9)
        assert level.null_sse is not None
    first = ascent.levels[1]
    assert first.params == 80 * 5 + (10 if "shared" in options else 0)
    bits = (math.log2(math.factorial(40)) if "order" in options else 0) + (
        40 if "assign" in options and "signs" not in options else 0
    )
    assert first.side_bits == ascent.levels[3].side_bits == pytest.approx(bits)


def test_white_noise_has_no_lift():
    W = np.random.default_rng(11).standard_normal((400, 128))
    ascent = tower(Encoder(None, columns=True).encode(W), 128, parse_tower("gaussian(order=assign)"))
    level = ascent.levels[1]
    assert level.r2 > 1.5 * 4 / 128
    assert abs(level.lift) < 0.01


def test_the_same_seed_finds_the_same_order():
    H, frame = squares(1, 30, 50), gaussian_basis(50, 3).frame
    first, second = (place_columns([H], frame, "assign", signed=True, seed=(4, 2))[0] for _ in range(2))
    np.testing.assert_array_equal(first.places, second.places)
    np.testing.assert_array_equal(first.signs, second.signs)


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("gaussian(order=svd)", PlacedGaussianStage(order="svd")),
        ("gaussian(K=16, order=assign)", PlacedGaussianStage(16, order="assign")),
        ("gaussian(width=0.5, order=assign, signs=no)", PlacedGaussianStage(None, 0.5, "assign", False)),
        ("gaussian(order=assign, signs=yes)", PlacedGaussianStage(order="assign")),
        ("gaussian(fit=shared)", PlacedGaussianStage(fit="shared")),
        ("gaussian(K=4, order=svd, fit=shared)", PlacedGaussianStage(4, order="svd", fit="shared")),
    ],
)
def test_orders_in_a_tower(text, stage):
    assert parse_tower(text) == (stage,)
    assert parse_tower(format_tower((stage,))) == (stage,)


@pytest.mark.parametrize(
    "text",
    [
        "gaussian(order=best)",
        "gaussian(signs=no)",
        "gaussian(order=svd, signs=no)",
        "gaussian(axis=rows, order=assign)",
        "gaussian(axis=rows, fit=shared)",
        "gaussian(order=assign, signs=maybe)",
    ],
)
def test_orders_that_are_none(text):
    with pytest.raises(TowerSyntaxError):
        parse_tower(text)


@pytest.mark.parametrize("width", [17, 64, 600])
def test_what_is_searched_beside_a_matrix_does_not_matter(width):
    matrices, frame = [squares(seed, 40, width) for seed in range(3)], gaussian_basis(width, 3).frame
    together = place_columns(matrices, frame, "assign", signed=True)
    for H, found in zip(matrices, together, strict=True):
        (alone,) = place_columns([H], frame, "assign", signed=True)
        np.testing.assert_array_equal(alone.places, found.places)
        np.testing.assert_array_equal(alone.signs, found.signs)
