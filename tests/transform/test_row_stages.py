"""Stages along the rows and quantization: bases against dense least squares, towers against rebuilt weights."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import decomposition

from rct_ray.transform.basis import BasisError, gaussian_functions
from rct_ray.transform.code_length import order_bits
from rct_ray.transform.curve_fit import fit_curve_fit
from rct_ray.transform.encode import Encoder
from rct_ray.transform.free_gaussians import fit_free
from rct_ray.transform.moments import coordinate_moments
from rct_ray.transform.quantize import code_bits, quantize
from rct_ray.transform.row_gaussians import order_of_rows, row_gaussians
from rct_ray.transform.row_steps import rows_like
from rct_ray.transform.stages import FreeGaussianStage
from rct_ray.transform.tower import tower
from rct_ray.transform.tower_language import TowerSyntaxError, format_tower, parse_tower

METRICS = ["isometric", "amplitude"]


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (5, 5), (40, 7), (300, 9), (333, 111), (1000, 1)])
@pytest.mark.parametrize("width", [0.3, 1.0, 1.5])
def test_gaussians_along_rows_are_least_squares(rows, count, width):
    codes = np.random.default_rng(rows).standard_normal((rows, 3))
    basis = row_gaussians(rows, count, width)
    G = gaussian_functions(rows, count, width)
    fitted = G.T @ np.linalg.lstsq(G.T, codes, rcond=None)[0]
    np.testing.assert_allclose(basis.decode(basis.encode(codes)), fitted, atol=1e-7)
    assert np.sum(basis.encode(codes) ** 2) == pytest.approx(np.sum(fitted**2), rel=1e-7)


def test_coordinates_along_rows_are_orthonormal():
    basis = row_gaussians(200, 12)
    frame = basis.decode(np.eye(12))
    np.testing.assert_allclose(frame.T @ frame, np.eye(12), atol=1e-11)
    np.testing.assert_allclose(basis.encode(frame), np.eye(12), atol=1e-11)


def test_gaussians_along_rows_that_can_not_be():
    with pytest.raises(BasisError, match="9 Gaussians along 8 rows: K must not exceed the rows"):
        row_gaussians(8, 9)
    with pytest.raises(BasisError, match="width may be at most"):
        row_gaussians(100, 9, 1.6)


def test_order_of_rows_finds_a_shuffled_ramp():
    generator = np.random.default_rng(1)
    place = generator.permutation(50)
    codes = np.outer(place - 10.0, [1, -2, 0.5]) + 0.01 * generator.standard_normal((50, 3))
    order = order_of_rows(codes)
    found = place[order]
    assert (found == np.arange(50)).all() or (found == np.arange(50)[::-1]).all()
    assert order_bits(8) == pytest.approx(math.log2(math.factorial(8)))
    assert order_bits(1) == 0


@given(
    rows=st.integers(1, 40),
    size=st.integers(1, 6),
    rank=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_rows_drawn_have_the_moments_asked_for(rows, size, rank, seed):
    generator = np.random.default_rng(seed)
    data = generator.standard_normal((rows, rank)) @ generator.standard_normal((rank, size)) + 3.0
    moments = coordinate_moments(data)
    drawn = rows_like(moments, np.random.default_rng(seed + 1))
    again = coordinate_moments(drawn)
    np.testing.assert_allclose(again.mean, moments.mean, atol=1e-10)
    np.testing.assert_allclose(
        again.scatter, moments.scatter, atol=1e-9 * (1 + np.abs(moments.scatter).max())
    )


def linear(codes, kind, value, metric):
    """A stage of the prefix: codes and the way back, by least squares."""
    size = codes.shape[1]
    if kind == "pca":
        mean = codes.mean(axis=0)
        _, s, V = np.linalg.svd(codes - mean, full_matrices=False)
        kept = int(np.argmax(np.cumsum(s**2) >= value * np.sum(s**2))) + 1
        signs = np.sign(V[np.arange(len(V)), np.abs(V).argmax(axis=1)])
        V = (V * signs[:, None])[:kept]
        return (codes - mean) @ V.T, lambda x: x @ V + mean, V.size + size
    if kind == "svd":
        V = np.linalg.svd(codes)[2][:value]
        V = V * np.sign(V[np.arange(value), np.abs(V).argmax(axis=1)])[:, None]
        return codes @ V.T, lambda x: x @ V, V.size
    G = gaussian_functions(size, value)
    if metric == "isometric":
        Q, R = np.linalg.qr(G.T)
        G = (Q * np.sign(np.diag(R))).T
    return np.linalg.lstsq(G.T, codes.T, rcond=None)[0].T, lambda x: x @ G, 0


def along_rows(codes, count, ordered, metric):
    del metric
    order = np.arange(len(codes))
    if ordered:
        first = np.linalg.svd(codes, full_matrices=False)[2][0]
        first = first * np.sign(first[np.abs(first).argmax()])
        order = np.argsort(codes @ first, kind="stable")
    Q, R = np.linalg.qr(gaussian_functions(len(codes), count).T)
    Q = Q * np.sign(np.diag(R))

    def back(x):
        rebuilt = np.empty((len(codes), x.shape[1]))
        rebuilt[order] = Q @ x
        return rebuilt

    return Q.T @ codes[order], back


TOWERS = [
    ("gaussian(6) > quantize(3)", [("gaussian", 6), ("quantize", 3)]),
    ("gaussian(6) > pca(0.9) > quantize(5)", [("gaussian", 6), ("pca", 0.9), ("quantize", 5)]),
    ("svd(5) > gaussian(K=4, axis=rows)", [("svd", 5), ("rows", 4, False)]),
    (
        "svd(5) > gaussian(K=9, axis=rows, order=svd) > pca(0.9) > quantize(4)",
        [("svd", 5), ("rows", 9, True), ("pca", 0.9), ("quantize", 4)],
    ),
    ("pca(0.999) > gaussian(axis=rows, K=20) > svd(2)", [("pca", 0.999), ("rows", 20, False), ("svd", 2)]),
    ("gaussian(K=8, axis=rows) > pca(0.9)", [("rows", 8, False), ("pca", 0.9)]),
    ("quantize(3)", [("quantize", 3)]),
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("text", "stages"), TOWERS, ids=[text for text, _ in TOWERS])
def test_towers_lose_what_rebuilt_weights_lack(text, stages, metric, ascend, coloured):
    W = coloured(90, 32)
    levels = ascend(W, text, metric, summary="gather", blocks=3).levels
    codes, decoders, charged, bits = W, [], 0, 0.0
    for level, (kind, *values) in zip(levels[1:], stages, strict=True):
        below, numbers = codes, None
        if kind == "quantize":
            quantized = quantize(codes, values[0])
            codes, back, charge = quantized.values(), lambda x: x, 2 * codes.shape[1]
            numbers = math.ceil(code_bits(quantized) / 16)
            assert level.code_bits == pytest.approx(code_bits(quantized), abs=30)
        elif kind == "rows":
            codes, back = along_rows(codes, *values, metric)
            charge = 0
            bits += order_bits(len(W)) if values[1] else 0
        else:
            codes, back, charge = linear(codes, kind, values[0], metric)
        decoders.append(back)
        charged += charge
        rebuilt = codes
        for decode in reversed(decoders):
            rebuilt = decode(rebuilt)
        sse = np.sum((W - rebuilt) ** 2)
        assert level.r2 == pytest.approx(1 - sse / np.sum(W**2), abs=1e-9), level.stage
        assert level.r2_prev == pytest.approx(
            1 - np.sum((below - back(codes)) ** 2) / np.sum(below**2), abs=1e-8
        )
        assert level.n_components == codes.shape[1]
        assert level.side_bits == bits
        if numbers is None:
            assert level.params == codes.size + charged
            assert level.code_bits is None
        else:
            assert abs(level.params - numbers - charged) <= 2  # a number on an edge may go either way


def test_the_null_goes_through_the_same_rounding_and_search(ascend):
    generator = np.random.default_rng(5)
    for text in (
        "svd(4) > quantize(2)",
        "gaussian(8) > quantize(2)",
        "svd(4) > gaussian(K=6, axis=rows, order=svd)",
    ):
        levels = [
            ascend(generator.standard_normal((120, 32)), text, summary="gather", seed=(seed,)).levels[-1]
            for seed in range(40)
        ]
        lifts = np.array([level.lift for level in levels])
        assert abs(lifts.mean()) < 4 * lifts.std() / np.sqrt(len(lifts)), text


def test_smooth_rows_are_found_and_charged_less(ascend):
    """Codes that vary slowly from row to row: a tenth of the numbers rebuild them."""
    places = np.linspace(0, 1, 400)
    generator = np.random.default_rng(0)
    W = np.stack([np.sin(2 * np.pi * f * places) for f in (1, 2, 3)], axis=1) @ generator.standard_normal(
        (3, 32)
    )
    plain, smooth = ascend(W, "svd(3) > gaussian(K=40, axis=rows)", summary="gather").levels[1:]
    assert smooth.params == 40 * 3 + 96 < plain.params / 5
    assert smooth.r2 > 0.9999
    assert smooth.null_r2 < 0.2
    shuffled = generator.permutation(400)
    again = ascend(W[shuffled], "svd(3) > gaussian(K=40, axis=rows)", summary="gather").levels[-1]
    assert again.r2 < 0.3
    one = np.outer(places, generator.standard_normal(32))[shuffled]
    ordered = ascend(one, "svd(1) > gaussian(K=40, axis=rows, order=svd)", summary="gather").levels[-1]
    assert ordered.r2 > 0.9999
    assert ordered.side_bits == pytest.approx(math.lgamma(401) / math.log(2))


def test_rows_that_were_not_kept_are_missed(ascend):
    with pytest.raises(ValueError, match="rows that some stage needs were not kept"):
        ascend(np.ones((4, 8)), "gaussian(2) > quantize(2)")


@pytest.mark.parametrize("fit", ["free", "curve_fit"])
@pytest.mark.parametrize("tail", ["", " > pca(0.9)", " > quantize(8)"])
def test_figures_of_free_gaussians_are_those_of_the_rows_rebuilt(fit, tail):
    """Decoded here by the formula of the row model, whatever the code went through."""
    generator = np.random.default_rng(4)
    places, rows = np.arange(24), 9
    centres, widths = generator.uniform(2, 21, (rows, 2)), generator.uniform(1.5, 4, (rows, 2))
    amplitudes = generator.standard_normal((rows, 2)) + 3
    bumps = np.exp(-0.5 * ((places - centres[..., None]) / widths[..., None]) ** 2)
    W = (amplitudes[..., None] * bumps).sum(axis=1) + 0.05 * generator.standard_normal((rows, 24))
    fitted_by = {"free": lambda W: parts(fit_free(W, 2)), "curve_fit": lambda W: parts(fit_curve_fit(W, 2))}

    def parts(fitted):
        return fitted.amplitudes, fitted.centres, fitted.widths

    def by_formula(code):
        A, c, s = (part[..., None] for part in np.split(code, 3, axis=1))
        return (A * np.exp(-((places - c) ** 2) / (2 * np.maximum(abs(s), 0.3) ** 2))).sum(axis=1)

    stages = parse_tower(f"gaussian(K=2, fit={fit}){tail}")
    ascent = tower(Encoder(None, columns=True, summary="gather").encode(W), 24, stages)
    first = ascent.levels[1]
    assert first.params == rows * 6
    assert 0 < first.converged <= 1
    assert first.r2 > 0.5
    assert all(np.isfinite([level.sse, level.null_sse]).all() for level in ascent.levels)
    code = np.concatenate([*fitted_by[fit](W)], axis=1)
    assert first.sse == pytest.approx(np.sum((W - by_formula(code)) ** 2), rel=1e-9)
    if "pca" in tail:
        pca = decomposition.PCA(ascent.levels[2].n_keep, svd_solver="full").fit(code)
        rebuilt = by_formula(pca.inverse_transform(pca.transform(code)))
        assert ascent.levels[2].sse == pytest.approx(np.sum((W - rebuilt) ** 2), rel=1e-6)
    converged = dict(ascent.rungs[0].step.matrices)["converged"]
    assert converged.shape == (1, rows)
    assert first.converged == converged.mean()


def test_free_gaussians_in_a_tower():
    assert parse_tower("gaussian(fit=free)") == (FreeGaussianStage(),)
    assert parse_tower("gaussian(K=4, width=0.5, fit=curve_fit)") == (FreeGaussianStage(4, 0.5, "curve_fit"),)
    for text in ("gaussian(fit=free)", "gaussian(K=4, width=0.5, fit=curve_fit)"):
        assert format_tower(parse_tower(text)) == text
    with pytest.raises(TowerSyntaxError, match="order or fit"):
        parse_tower("gaussian(order=assign, fit=free)")
    with pytest.raises(TowerSyntaxError):
        parse_tower("gaussian(fit=best)")
