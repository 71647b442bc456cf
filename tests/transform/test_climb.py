"""The heart: every figure of every level against rows that were really encoded, decoded and subtracted."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rct_ray.transform.affine_code import AffineCode
from rct_ray.transform.basis import gaussian_basis
from rct_ray.transform.climb import climb
from rct_ray.transform.encode import Encoder
from rct_ray.transform.moments import coordinate_moments
from rct_ray.transform.tower import tower
from rct_ray.transform.tower_estimator import Tower
from rct_ray.transform.tower_language import parse_tower

FIRST = ["gaussian(8)", "dct(8)", "haar(8)", "random(8)", "svd(8)", "pca(0.9)"]
THEN = [
    "",
    " > pca(0.95) > pca(0.95) > pca(0.95)",
    " > pca(0.9) > dct(2)",
    " > pca(0.99) > haar(3) > pca(0.8)",
    " > svd(5) > gaussian(3) > pca(0.9)",
    " > gaussian(4) > svd(3)",
]
TOWERS = [first + then for first in FIRST for then in THEN]
TOWERS += ["gaussian > pca > dct(2)", "svd(6) > haar(3) > pca(0.9)", "svd > pca(1)", "haar(48) > svd(48)"]
TOWERS = [text.replace("pca > ", "pca(0.95) > ") for text in TOWERS]
METRICS = ["isometric", "amplitude"]


@pytest.mark.parametrize("shape", [(300, 48), (20, 64)], ids=["tall", "wide"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("text", TOWERS)
def test_levels_are_those_of_the_rebuilt_rows(
    text, metric, shape, coloured, slow_tower, ascend, assert_levels
):
    rows = coloured(*shape)
    assert_levels(ascend(rows, text, metric, blocks=7).levels, slow_tower(rows, text, metric), rows)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("text", ["gaussian(8) > pca(0.95) > pca(0.95)", "svd(8) > pca(0.9) > dct(2)"])
@pytest.mark.parametrize("name", ["blocks.0.attn.c_attn.weight", "pos_emb.weight", "blocks.0.mlp.0.weight"])
def test_levels_of_trained_weights(name, text, metric, trained, slow_tower, ascend, assert_levels):
    rows = trained[name].astype(np.float64)
    assert_levels(ascend(rows, text, metric, blocks=3).levels, slow_tower(rows, text, metric), rows)


@pytest.mark.parametrize("shape", [(300, 48), (20, 64)], ids=["tall", "wide"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("summary", ["tsqr", "gather"])
@pytest.mark.parametrize("text", TOWERS[::3])
def test_other_summaries_of_rows_give_the_same_levels(
    text, summary, metric, shape, coloured, slow_tower, ascend, assert_levels
):
    rows = coloured(*shape)
    levels = ascend(rows, text, metric, blocks=4, summary=summary).levels
    assert_levels(levels, slow_tower(rows, text, metric), rows)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("text", TOWERS)
def test_codes_encode_and_decode_rows(text, metric, coloured, slow_tower):
    rows, new = coloured(200, 48), coloured(5, 48, seed=1)
    fitted = Tower(text, metric=metric).fit(rows)
    slow = slow_tower(rows, text, metric)
    for code, want in zip(fitted.codes_[1:], slow, strict=True):
        scale = np.abs(want.codes).max()
        np.testing.assert_allclose(code.encode(rows), want.codes, rtol=0, atol=1e-8 * scale)
        np.testing.assert_allclose(code.decode(want.codes), want.decoded, rtol=0, atol=1e-8)
        lost = np.sum((new - code.decode(code.encode(new))) ** 2)
        assert code.lost(coordinate_moments(new)) == pytest.approx(lost, rel=1e-9, abs=1e-20)
    np.testing.assert_array_equal(fitted.transform(rows), fitted.codes_[-1].encode(rows))


KINDS = ["normal", "low rank", "constant columns", "mean", "huge mean", "tiny", "zeros", "alike"]


def make_rows(kind, rows, width, seed):
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((rows, width)) * (1 + generator.random(width))
    if kind == "low rank":
        return generator.standard_normal((rows, 2)) @ generator.standard_normal((2, width))
    if kind == "constant columns":
        return np.where(generator.random(width) < 0.5, noise[0], noise)
    if kind == "alike":
        return np.tile(noise[0], (rows, 1))
    scale, mean = {"mean": (1, 3), "huge mean": (1, 1e8), "tiny": (1e-30, 0), "zeros": (0, 0)}.get(
        kind, (1, 0)
    )
    return noise * scale + mean


def is_clear(want, threshold, rows):
    """Whether no rounding decides how many components a PCA keeps."""
    if len(rows) == 1 or not rows.any():
        return True
    return want.spread > 1e-12 and np.all(np.abs(want.shares - threshold) > 1e-6)


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, max_examples=250, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 40),
    width=st.integers(1, 70),
    first=st.sampled_from(["gaussian", "dct", "haar", "svd", "pca"]),
    then=st.sampled_from(
        ["", " > pca(0.9) > pca(0.9)", " > svd(3) > pca(0.8)", " > dct(4) > pca(0.9) > haar(2)"]
    ),
    count=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_rows(slow_tower, ascend, assert_levels, metric, kind, rows, width, first, then, count, seed):
    text = ("pca(0.85)" if first == "pca" else f"{first}({min(count, width)})") + then
    matrix = make_rows(kind, rows, width, seed)
    slow = slow_tower(matrix, text, metric)
    for want, stage in zip(slow, parse_tower(text), strict=True):
        if want.n_keep is not None:
            assume(is_clear(want, stage.threshold, matrix))
    # X^T X of rows far from zero holds what they have in common and little else.
    assume(not (kind == "huge mean" and "svd" in text))
    assert_levels(ascend(matrix, text, metric, blocks=3).levels, slow, matrix)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 40),
    width=st.integers(1, 70),
    text=st.sampled_from(TOWERS[:-1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_isometric_r2_never_rises_up_a_tower(ascend, kind, rows, width, text, seed):
    text = text.replace("(8)", f"({min(8, width)})")
    levels = ascend(make_rows(kind, rows, width, seed), text).levels
    shares = [level.r2 for level in levels]
    assert shares[0] == 1
    assert all(-1e-12 <= share <= 1 for share in shares)
    assert all(below >= above - 1e-12 for below, above in pairwise(shares))
    for below, level in pairwise(levels):
        assert -1e-12 <= level.r2_prev <= 1
        ratio = level.participation_ratio
        assert ratio is None or 1 - 1e-9 <= ratio <= below.n_components + 1e-9


def test_one_row_is_its_own_mean(ascend):
    levels = ascend(np.random.default_rng(0).standard_normal((1, 16)), "pca(0.95) > pca(0.95)").levels
    assert [level.n_keep for level in levels] == [None, 1, 1]
    assert [level.participation_ratio for level in levels] == [None, None, None]
    assert levels[1].r2 == 1
    # 1 score, a decoder of 16, a mean of 16; then 1 score, 1, 1 on top of those.
    assert [level.params for level in levels] == [16, 33, 35]


@pytest.mark.parametrize("text", ["gaussian(4)", "svd(4)", "pca(0.9)"])
def test_rows_all_alike_are_their_mean(text, ascend, slow_tower):
    """A scatter of nothing but rounding: whatever a PCA keeps of it, the mean holds the rows."""
    rows = np.tile(np.random.default_rng(0).standard_normal(32), (30, 1))
    levels = ascend(rows, f"{text} > pca(0.9) > pca(0.9)", blocks=3).levels
    want = slow_tower(rows, text)[0].sse
    for level in levels[1:]:
        assert level.sse == pytest.approx(want, rel=1e-12, abs=1e-12 * np.sum(rows**2))


def test_zeros(ascend):
    levels = ascend(np.zeros((30, 64)), "gaussian(8) > pca(0.95) > pca(0.95)").levels
    assert [level.r2 for level in levels] == [1, 1, 1, 1]
    assert [level.n_keep for level in levels] == [None, None, 1, 1]
    assert [level.lift for level in levels] == [None, None, None, None]


def test_threshold_one_keeps_the_rank(ascend):
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((100, 3)) @ generator.standard_normal((3, 32))
    level = ascend(rows, "pca(0.9999999)").levels[1]
    assert level.n_keep == 3
    assert level.r2 == pytest.approx(1, abs=1e-14)


def test_kept_overrides_thresholds(coloured):
    stages, basis = parse_tower("gaussian(8) > pca(0.95) > pca(0.95)"), gaussian_basis(64, 8)
    moments = Encoder(basis.frame).encode(coloured(50, 64)).projected
    rungs = climb(moments, 0.0, stages, basis, kept=[8, 5, 2])
    assert [rung.step.n_components for rung in rungs] == [8, 5, 2]
    assert rungs[1].sse == pytest.approx(np.linalg.eigvalsh(moments.scatter)[:3].sum(), rel=1e-9)
    assert rungs[2].sse == pytest.approx(np.linalg.eigvalsh(moments.scatter)[:6].sum(), rel=1e-9)


def test_amplitude_metric_of_a_pca_is_the_trace_formula(coloured, ascend):
    """SSE_2 = SSE_1 + tr(M P G G^T P), M the amplitudes' scatter and P = I - V V^T."""
    rows = coloured(150, 64)
    basis = gaussian_basis(64, 8)
    amplitudes = rows @ np.linalg.pinv(basis.functions)
    scatter = np.cov(amplitudes, rowvar=False) * (len(rows) - 1)
    vectors = np.linalg.eigh(scatter)[1][:, ::-1]
    levels = ascend(rows, "gaussian(8) > pca(0.95)", "amplitude").levels
    dropped = np.eye(8) - vectors[:, : levels[2].n_keep] @ vectors[:, : levels[2].n_keep].T
    added = np.trace(scatter @ dropped @ basis.functions @ basis.functions.T @ dropped)
    assert levels[2].sse == pytest.approx(levels[1].sse + added, rel=1e-9)


def test_metrics_agree_on_orthonormal_bases(coloured, ascend):
    rows = coloured(60, 64)
    for text in ("dct(8) > pca(0.9)", "svd(8) > haar(4)"):
        for one, other in zip(ascend(rows, text).levels, ascend(rows, text, "amplitude").levels, strict=True):
            assert one.sse == pytest.approx(other.sse, rel=1e-9, abs=1e-20)
            assert one.params == other.params


def test_ill_conditioned_gaussians_climb_in_the_isometric_metric_alone(coloured, ascend):
    rows, text = coloured(60, 64), "gaussian(K=8, width=50) > pca(0.95)"
    assert 0 < ascend(rows, text).levels[2].r2 <= 1
    with pytest.raises(ValueError, match="nearly dependent"):
        ascend(rows, text, "amplitude")


def test_what_a_stage_needs_must_be_there():
    rows = np.ones((4, 8))
    with pytest.raises(ValueError, match="moments that the first stage needs were not kept"):
        tower(Encoder(None, columns=True).encode(rows), 8, parse_tower("dct(2)"))
    with pytest.raises(ValueError, match="moments that the first stage needs were not kept"):
        tower(Encoder(np.eye(8)).encode(rows), 8, parse_tower("pca"))
    with pytest.raises(ValueError, match="a fixed first stage needs its basis"):
        climb(coordinate_moments(rows), 0.0, parse_tower("dct(2)"), None)


def test_an_orthonormal_frame_is_a_code():
    frame = gaussian_basis(16, 3).frame
    rows = np.random.default_rng(0).standard_normal((5, 16))
    code = AffineCode.of_frame(frame)
    np.testing.assert_allclose(code.decode(code.encode(rows)), rows @ frame @ frame.T, atol=1e-14)
