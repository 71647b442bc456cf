"""The tower language: what it reads, what it writes, and where its errors point."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rct_ray.transform.stages import (
    DCTStage,
    FreeGaussianStage,
    GaussianStage,
    HaarStage,
    PCAStage,
    PlacedGaussianStage,
    QuantizeStage,
    RandomStage,
    RowGaussianStage,
    SVDStage,
)
from rct_ray.transform.tower_language import DEFAULT_TOWER, TowerSyntaxError, format_tower, parse_tower

counts = st.none() | st.integers(1, 999_999_999)
widths = st.floats(0, 1000, exclude_min=True)
stages = st.one_of(
    st.builds(GaussianStage, counts, widths),
    st.builds(DCTStage, counts),
    st.builds(HaarStage, counts),
    st.builds(SVDStage, counts),
    st.builds(PCAStage, st.floats(0, 1, exclude_min=True)),
    st.builds(
        PlacedGaussianStage,
        counts,
        widths,
        st.just("assign"),
        st.booleans(),
        st.sampled_from(["fixed", "shared"]),
    ),
    st.builds(
        PlacedGaussianStage,
        counts,
        widths,
        st.sampled_from(["none", "svd"]),
        st.just(True),
        st.just("shared"),
    ),
    st.builds(FreeGaussianStage, counts, widths, st.sampled_from(["free", "curve_fit"])),
)


@given(st.lists(stages, min_size=1, max_size=6).map(tuple))
def test_a_tower_reads_back_as_written(tower):
    text = format_tower(tower)
    assert parse_tower(text) == tower
    assert format_tower(parse_tower(text)) == text


@given(st.lists(stages, min_size=1, max_size=4).map(tuple), st.sampled_from(["", " ", "\t", "\n ", "   "]))
def test_space_means_nothing(tower, space):
    text = format_tower(tower)
    for mark in ">(),=":
        text = text.replace(mark, f"{space}{mark}{space}")
    assert parse_tower(space + text + space) == tower


@given(st.text() | st.text(alphabet="gausindcthrpvKwe=(),> 0123.459\n"))
def test_any_text_is_a_tower_or_a_one_line_error(text):
    error = None
    try:
        parse_tower(text)
    except TowerSyntaxError as caught:
        error = caught
    if error:
        assert 0 <= error.position <= len(text)
        assert len(str(error).splitlines()) == 1


def test_the_default_tower():
    pca = PCAStage(0.95)
    assert parse_tower(DEFAULT_TOWER) == (GaussianStage(), pca, pca, pca)
    assert format_tower(parse_tower(DEFAULT_TOWER)) == DEFAULT_TOWER


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("gaussian", GaussianStage()),
        ("gaussian()", GaussianStage()),
        ("gaussian(16)", GaussianStage(16)),
        ("gaussian(K=16, width=0.5)", GaussianStage(16, 0.5)),
        ("gaussian(width=0.5,16)", GaussianStage(16, 0.5)),
        ("dct(K=4)", DCTStage(4)),
        ("haar( 3 )", HaarStage(3)),
        ("random(K=3)", RandomStage(3)),
        ("gaussian(K=9, axis=rows)", RowGaussianStage(9)),
        ("gaussian(axis=rows, order=svd, width=0.5)", RowGaussianStage(None, 0.5, "svd")),
        ("gaussian(axis=columns)", GaussianStage()),
        ("quantize", QuantizeStage(4)),
        ("quantize( bits = 16 )", QuantizeStage(16)),
        ("svd(3, share=width)", SVDStage(3, "width")),
        ("svd(share = tensor)", SVDStage()),
        ("svd(6)", SVDStage(6)),
        ("svd", SVDStage()),
        ("pca", PCAStage()),
        ("pca(1)", PCAStage(1.0)),
        ("pca(threshold=9e-1)", PCAStage(0.9)),
    ],
)
def test_ways_to_write_a_stage(text, stage):
    assert parse_tower(text) == (stage,)


@pytest.mark.parametrize(
    ("text", "fault", "left"),
    [
        ("", "expected a stage", ""),
        ("   ", "expected a stage", "   "),
        ("> pca", "expected a stage", ""),
        ("pca >", "expected a stage", "pca >"),
        ("pca > > pca", "expected a stage", "pca > "),
        ("8", "expected a stage", ""),
        ("gausian(8)", "did you mean gaussian?", ""),
        (
            "pca > fourier",
            "unknown stage 'fourier' (known: gaussian, dct, haar, random, svd, quantize, pca)",
            "pca > ",
        ),
        ("PCA", "unknown stage 'PCA'", ""),
        ("pca pca", "expected '>' between stages", "pca "),
        ("pca, pca", "expected '>' between stages", "pca"),
        ("dct(8", "unclosed '('", "dct"),
        ("pca > dct(8 > pca", "unclosed '('", "pca > dct"),
        ("dct(8))", "expected '>' between stages", "dct(8)"),
        ("dct(0)", "K must be a whole number of at least 1, not '0'", "dct("),
        ("dct(-1)", "not '-1'", "dct("),
        ("dct(2.5)", "not '2.5'", "dct("),
        ("dct(K= )", "not ''", "dct(K="),
        ("dct(,)", "not ''", "dct("),
        ("dct(10000000000)", "not '10000000000'", "dct("),
        ("dct(K=8, K=9)", "given twice", "dct(K=8, "),
        ("gaussian(8, K=9)", "given twice", "gaussian(8, "),
        ("dct(width=2)", "dct has no option 'width' (it has K)", "dct("),
        ("pca(K=2)", "pca has no option 'K' (it has threshold)", "pca("),
        (
            "gaussian(k=2)",
            "gaussian has no option 'k' (it has K, width, axis, order, signs, fit)",
            "gaussian(",
        ),
        ("svd(3, share=all)", "share must be tensor or width, not 'all'", "svd(3, share="),
        ("pca > svd(share=width)", "share=width is for the first stage", "pca > "),
        (
            "gaussian(axis=rows, order=assign)",
            "along the rows order is none or svd",
            "",
        ),
        ("dct > gaussian(signs=no)", "signs are for order=assign", "dct > "),
        ("gaussian(axis=x)", "axis must be columns or rows, not 'x'", "gaussian(axis="),
        ("quantize(0)", "bits must be a whole number from 1 to 16, not '0'", "quantize("),
        ("quantize(17)", "bits must be a whole number", "quantize("),
        ("quantize(2.5)", "bits must be a whole number", "quantize("),
        ("quantize(3) > pca", "quantize is the last stage", "quantize(3) > "),
        ("pca(0)", "threshold must be above 0 and at most 1, not 0", "pca("),
        ("pca(1.01)", "threshold must be above 0", "pca("),
        ("pca(nan)", "threshold must be above 0", "pca("),
        ("pca(-inf)", "threshold must be above 0", "pca("),
        ("pca(a lot)", "threshold must be a number, not 'a lot'", "pca("),
        ("gaussian(8, width = 0)", "width must be above 0", "gaussian(8, width = "),
        ("gaussian(width=1001)", "at most 1000, not 1001", "gaussian(width="),
        ("gaussian(width=x)", "must be a number, not 'x'", "gaussian(width="),
    ],
)
def test_errors_point_at_the_character(text, fault, left):
    with pytest.raises(TowerSyntaxError) as caught:
        parse_tower(text)
    message = str(caught.value)
    assert fault in message
    assert caught.value.position == len(left)
    assert message.endswith(f", at character {len(left) + 1} of the tower: {left}→{text[len(left) :]}")


@pytest.mark.parametrize("text", ["pca >\n fourier", "pca(0.\n5)", "pca\r\nx", "pca(\x0b2)", "pca\u2028x"])
def test_errors_are_one_line(text):
    with pytest.raises(TowerSyntaxError) as caught:
        parse_tower(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["gaussian", "dct", "haar"])
def test_a_fixed_basis_takes_no_more_components_than_columns(name):
    (stage,) = parse_tower(f"{name}(9)")
    assert stage.basis(9).frame.shape == (9, 9)
    with pytest.raises(ValueError, match="9 components of 8 columns: K must not exceed the width"):
        stage.basis(8)


@pytest.mark.parametrize("kind", [GaussianStage, DCTStage, HaarStage, SVDStage])
def test_components_default_to_a_32nd_of_the_columns(kind):
    assert [kind().components_for(width) for width in (1, 100, 256)] == [1, 3, 8]
    assert kind(5).components_for(256) == 5


def test_gaussian_stage_passes_its_width_on():
    wide, plain = GaussianStage(8, 2.0).basis(64), GaussianStage(8).basis(64)
    assert wide.functions[0, 16] == pytest.approx(plain.functions[0, 8], rel=1e-12)
