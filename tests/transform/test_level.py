"""Figures of levels by hand: counts, flags, ratios, and how the towers of several widths add up."""

import math
from itertools import pairwise

import numpy as np
import pytest

from rct_ray.transform.basis import gaussian_functions
from rct_ray.transform.level import Level, add_up, honest_level, kept_share, mark_fixed_point

SEED_TOWER = "gaussian(8) > pca(0.95) > pca(0.95) > pca(0.95)"


def make_level(level=1, params=100, **changes):
    figures = {
        "stage": "dct(8)",
        "rows": 10,
        "weights": 320,
        "n_components": 8,
        "side_bits": 0.0,
        "level_ratio": 3.2,
        "participation_ratio": 1.5,
        "n_keep": 8,
        "threshold": 0.95,
        "sse_prev": 1.0,
        "sst_prev": 4.0,
        "sse": 2.0,
        "sst": 10.0,
        "sst_centered": 8.0,
        "null_sse": 9.0,
        "null_sst": 12.0,
        "null_participation_ratio": 7.0,
        "svd_kept": 9.0,
        "pca_method": "moments",
        "incompressible": False,
    }
    return Level(level=level, params=params, **{**figures, **changes})


def test_the_seeds_counts(ascend):
    """512 rows whose 8 amplitudes have rank 2, but for a little noise."""
    generator = np.random.default_rng(0)
    mixing = np.linalg.qr(generator.standard_normal((8, 2)))[0].T
    amplitudes = generator.standard_normal((512, 2)) @ mixing + 1e-3 * generator.standard_normal((512, 8))
    levels = ascend(amplitudes @ gaussian_functions(256, 8), SEED_TOWER, "amplitude").levels
    assert [level.n_keep for level in levels] == [None, None, 2, 2, 2]
    assert [level.params for level in levels] == [131_072, 4_096, 1_048, 1_054, 1_060]
    assert [level.fixed_point for level in levels] == [False, False, True, False, False]
    assert [level.incompressible for level in levels] == [False, False, False, True, True]
    assert levels[1].cumulative_ratio == 32
    assert levels[2].level_ratio == pytest.approx(4096 / 1048)
    assert [level.stage for level in levels] == ["weights", "gaussian(K=8)"] + ["pca(0.95)"] * 3


def test_charges_of_stages(coloured, ascend):
    rows = coloured(100, 64)
    levels = ascend(rows, "svd(8) > haar(4) > svd(2) > dct(1)").levels
    # Codes of 8, 4, 2, 1 a row; 8 x 64 for the first SVD, 2 x 4 for the second.
    assert [level.params for level in levels] == [6400, 800 + 512, 400 + 512, 200 + 520, 100 + 520]


@pytest.mark.parametrize(
    ("params", "fixed"),
    [
        ([100, 50, 20], None),
        ([100, 50, 50, 10], 1),
        ([100, 50, 60, 10, 20], 1),
        ([100, 100], 0),
        ([100, 200, 300], 0),
        ([100], None),
        ([100, 50, 20, 21], 2),
    ],
)
def test_fixed_point(params, fixed):
    levels = mark_fixed_point([make_level(index, count) for index, count in enumerate(params)])
    assert [level.fixed_point for level in levels] == [index == fixed for index in range(len(params))]
    assert [level.params for level in levels] == params


def test_incompressible_levels(ascend):
    white = np.random.default_rng(0).standard_normal((500, 16))
    assert [level.incompressible for level in ascend(white, "pca(1)").levels] == [False, True]
    assert [level.incompressible for level in ascend(white, "dct(16) > pca(0.5)").levels] == [
        False,
        True,
        False,
    ]
    assert [level.incompressible for level in ascend(white, "dct(15)").levels] == [False, False]
    flat = np.outer(np.arange(500), np.ones(16))
    assert [level.incompressible for level in ascend(flat, "pca > pca > svd(1)").levels] == [
        False,
        False,
        True,
        True,
    ]


def test_figures_of_a_level():
    level = make_level()
    assert level.cumulative_ratio == 3.2
    assert level.r2_prev == 0.75
    assert level.r2 == 0.8
    assert level.r2_centered == 0.75
    assert level.null_r2 == 0.25
    assert level.lift == pytest.approx(0.55 / 0.75, rel=1e-15)
    assert level.svd_bound_r2 == 0.9
    assert level.sqnr_db == pytest.approx(10 * math.log10(5), rel=1e-15)
    assert level.relative_error == pytest.approx(math.sqrt(0.2), rel=1e-15)


def test_figures_at_the_edges():
    perfect, empty = make_level(sse=0.0), make_level(sse=0.0, sst=0.0, sst_centered=0.0)
    assert perfect.sqnr_db == math.inf
    assert (empty.r2, empty.r2_centered, empty.relative_error) == (1, 1, 0)
    assert make_level(null_sse=0.0).lift is None
    assert make_level(null_sse=None).null_r2 is None
    assert make_level(null_sst=None).lift is None
    assert make_level(svd_kept=None).svd_bound_r2 is None
    assert make_level(svd_kept=11.0).svd_bound_r2 == 1
    assert kept_share(1.0, 0.0) == 0


def test_level_0_codes_weights_with_no_model():
    assert make_level(0).bits_per_weight == pytest.approx(3.3219, abs=5e-5)
    assert make_level(0).bits_per_weight == 0.5 * math.log2(1 / (1 - 0.99))


def test_honest_level_has_the_fewest_bits():
    levels = [
        make_level(0),
        make_level(1, 10, sse=1.0),
        make_level(2, 1, sse=9.9),
        make_level(3, 64, sse=0.05),
    ]
    bits = [level.bits_per_weight for level in levels]
    assert honest_level(levels) == bits.index(min(bits)) == 1
    assert honest_level([make_level(0), make_level(1, 320)]) == 0
    assert honest_level([make_level(1, 9, sse=0.01), make_level(2, 9, sse=0.01)]) == 1


def test_the_model_is_the_sum_of_its_widths(coloured, ascend):
    groups = [coloured(100, 64, seed=1), coloured(30, 128, seed=2) + 1, coloured(200, 32, seed=3)]
    text = "gaussian > pca(0.9) > pca(0.9)"
    towers = [ascend(rows, text).levels for rows in groups]
    every = np.concatenate([rows.ravel() for rows in groups])
    summed = add_up(towers, float(np.sum((every - every.mean()) ** 2)))
    assert [level.level for level in summed] == [0, 1, 2, 3]
    for index, level in enumerate(summed):
        parts = [levels[index] for levels in towers]
        assert level.stage == parts[0].stage
        for name in ("rows", "weights", "params"):
            assert getattr(level, name) == sum(getattr(part, name) for part in parts)
        for name in ("sse", "sst", "sse_prev", "sst_prev", "null_sse", "null_sst", "svd_kept"):
            assert getattr(level, name) == pytest.approx(
                sum(getattr(part, name) for part in parts), rel=1e-14
            )
        assert level.participation_ratio is None
        assert level.n_keep is None
        assert level.null_participation_ratio is None
        assert level.r2 == pytest.approx(1 - sum(part.sse for part in parts) / np.sum(every**2), rel=1e-12)
        centred = np.sum((every - every.mean()) ** 2)
        assert level.r2_centered == pytest.approx(1 - sum(part.sse for part in parts) / centred, rel=1e-12)
        assert level.incompressible == all(part.incompressible for part in parts)
    assert [level.fixed_point for level in mark_fixed_point(summed)] == [
        level.fixed_point for level in summed
    ]
    for below, level in pairwise(summed):
        assert level.level_ratio == below.params / level.params


def test_adding_up_marks_the_sums_own_fixed_point():
    wide = [make_level(0, 1000), make_level(1, 900), make_level(2, 950)]
    narrow = [make_level(0, 1000), make_level(1, 900, fixed_point=True), make_level(2, 800)]
    summed = add_up([mark_fixed_point(wide), narrow], 1.0)
    assert [level.fixed_point for level in summed] == [False, False, False]


def test_adding_up_what_one_group_does_not_know():
    known, unknown = make_level(), make_level(svd_kept=None, n_components=4, incompressible=True)
    (level,) = add_up([[known], [unknown]], 16.0)
    assert level.svd_kept is None
    assert level.n_components == 0
    assert not level.incompressible
    (same,) = add_up([[known], [known]], 16.0)
    assert (same.n_components, same.svd_kept, same.sst_centered) == (8, 18, 16)
