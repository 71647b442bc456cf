"""Checkpoints side by side: their figures, how far what they keep has turned, and what is refused."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import rct_ray
from rct_ray.report.angles import subspace_angles
from rct_ray.report.compare import FIGURES, by_change, first_compressed, members_of, series_of
from rct_ray.report.sparkline import sparkline
from rct_ray.results import ResultsError, open_run


def steps(save, tmp_path, out="run", **settings):
    """A run over three steps of a model whose tensor `b` turns from noise to rank 1."""
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((60, 32))
    rank1 = rng.standard_normal((60, 1)) @ rng.standard_normal((1, 32))
    still = rng.standard_normal((50, 32))
    paths = [
        save(
            {
                "a": still.astype(np.float32),
                "b": ((1 - share) * noise + share * rank1).astype(np.float32),
                "c[bold]\x1b": np.eye(16, dtype=np.float32),
            },
            f"step{step}.safetensors",
        )
        for step, share in ((0, 0.0), (10, 0.5), (30, 1.0))
    ]
    return rct_ray.run(paths, tmp_path / out, **{"tower": "svd(2) > pca(0.9)", **settings})


def test_the_series_are_the_tables(save, tmp_path):
    run = steps(save, tmp_path)
    series = series_of(members_of([run]))
    assert [(one.scope, one.name) for one in series] == [
        ("tensor", "a"), ("tensor", "b"), ("tensor", "c[bold]\x1b"),
        ("width", "16"), ("width", "32"), ("model", "model"),
    ]  # fmt: skip
    seen = 0
    for one in series:
        for place, label in enumerate(("step0", "step10", "step30")):
            rows = [
                row
                for row in run.levels_of(scope=one.scope, name=one.name, checkpoint=label).to_pylist()
                if row["width"] == one.width
            ]
            seen += len(rows)
            assert [row["stage"] for row in rows] == one.stages
            assert rows[0]["weights"] == one.weights[place]
            for row in rows:
                for figure in FIGURES:
                    assert one.figures[figure][row["level"]][place] == row[figure]
            fixed = [row["level"] for row in rows if row["fixed_point"]]
            assert one.fixed_points[place] == (fixed[0] if fixed else None)
            bits = [row["bits_per_weight"] for row in rows]
            assert one.honest_levels[place] == bits.index(min(bits))
    assert seen == run.levels.num_rows
    assert first_compressed(series) == 2


def test_what_changed_most_comes_first(save, tmp_path):
    series = series_of(members_of([steps(save, tmp_path)]))
    tensors = [one for one in series if one.scope == "tensor"]
    ordered = by_change(tensors, "r2", 1)
    assert ordered[0].name == "b"
    assert ordered[0].change("r2", 1) > 0.5
    # The other two never change.
    assert [one.change("r2", 1) for one in ordered[1:]] == [0.0, 0.0]
    assert ordered[0].change("r2", 9) is None


def test_a_tower_that_some_checkpoints_lack(save, tmp_path):
    both = save({"a": np.eye(8, dtype=np.float32), "b": np.eye(8, dtype=np.float32)}, "one.safetensors")
    one = save({"a": np.eye(8, dtype=np.float32)}, "two.safetensors")
    runs = [rct_ray.run(path, tmp_path / path.stem) for path in (both, one)]
    series = {one.name: one for one in series_of(members_of(runs)) if one.scope == "tensor"}
    assert series["b"].weights == [64, None]
    assert series["b"].figures["r2"][1][1] is None
    assert series["b"].change("r2", 1) is None
    assert (series["b"].fixed_points[1], series["b"].honest_levels[1]) == (None, None)
    assert [tower.name for tower in by_change(list(series.values()), "r2", 1)] == ["a", "b"]


def test_checkpoints_of_one_label_are_told_apart(tiny, tmp_path):
    runs = [rct_ray.run(tiny, tmp_path / name) for name in ("one", "two")]
    names = [member.name for member in members_of(runs)]
    assert names == [f"{tmp_path / name}: tiny-step02500" for name in ("one", "two")]
    assert all(one.change("r2", 1) == 0 for one in series_of(members_of(runs)))


# Angles.


def test_angles_of_planes_that_were_turned_by_a_known_one(save, tmp_path):
    """Two directions of twelve, one of which turns by 25 degrees into a third."""
    rng = np.random.default_rng(3)
    # Left factors and singular values are the same in both, so the planes are those of the rows' right factors.
    left = np.linalg.qr(rng.standard_normal((40, 2)))[0] * [5.0, 3.0]
    frame = np.linalg.qr(rng.standard_normal((12, 12)))[0][:3]
    turn = Rotation.from_euler("x", 25, degrees=True).as_matrix()[:2]
    before, after = left @ np.eye(3)[:2] @ frame, left @ turn @ frame
    for number, (tower, level) in enumerate((("svd(2)", 1), ("pca(1) > pca(1)", 2))):
        runs = [
            rct_ray.run(save({"a": values}, f"{name}.safetensors"), tmp_path / f"{name}{number}", tower=tower)
            for name, values in (("before", before - before.mean(0)), ("after", after - after.mean(0)))
        ]
        found = {row["level"]: row for row in subspace_angles(*members_of(runs)) if row["scope"] == "tensor"}
        row = found[level]
        assert (row["name"], row["width"], row["components"]) == ("a", 12, 2)
        # A cosine near 1 holds an angle to half the digits; the other angle is 25 degrees to many more.
        assert row["largest"] == pytest.approx(25, abs=1e-5)
        assert row["mean"] == pytest.approx(12.5, abs=1e-4)


def test_angles_on_a_fixed_basis_are_those_among_its_functions(save, tmp_path):
    """What PCA keeps of the lowest frequencies is carried down to the columns of the weights."""
    rng = np.random.default_rng(4)
    basis = rct_ray.DCTBasis(4).fit(np.zeros((1, 16))).inverse_transform(np.eye(4))
    scores = np.linalg.qr(rng.standard_normal((50, 2)))[0]
    scores = (scores - scores.mean(0)) * [4.0, 3.0]
    turned = np.eye(4)[:2].copy()
    turned[1] = [0, np.cos(0.5), np.sin(0.5), 0]
    runs = [
        rct_ray.run(
            save({"a": scores @ plane @ basis}, f"{name}.safetensors"),
            tmp_path / name,
            tower="dct(4) > pca(0.999)",
        )
        for name, plane in (("before", np.eye(4)[:2]), ("after", turned))
    ]
    found = [row for row in subspace_angles(*members_of(runs)) if row["scope"] == "tensor"]
    assert [row["level"] for row in found] == [2]
    assert np.radians(found[0]["largest"]) == pytest.approx(0.5, abs=1e-6)


def test_angles_of_amplitudes_are_between_what_they_decode_to(save, tmp_path):
    """In the amplitude metric components mix Gaussians, which are not at right angles to each other."""
    rng = np.random.default_rng(8)
    gaussians = np.exp(-0.5 * ((np.arange(64) - np.linspace(0, 63, 4)[:, None]) / 16) ** 2)
    scores = rng.standard_normal((50, 1))
    mixed = [np.array([[1.0, 0.5, 0.0, 0.0]]), np.array([[0.0, 0.3, 1.0, 0.2]])]
    runs = [
        rct_ray.run(
            save({"a": (scores - scores.mean()) @ mix @ gaussians}, f"{place}.safetensors"),
            tmp_path / str(place),
            tower="gaussian(K=4) > pca(0.9)",
            metric="amplitude",
        )
        for place, mix in enumerate(mixed)
    ]
    (row,) = (row for row in subspace_angles(*members_of(runs)) if row["scope"] == "tensor")
    one, other = (mix[0] @ gaussians for mix in mixed)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert row["components"] == 1
    assert row["largest"] == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-6)


@pytest.mark.parametrize(
    "tower",
    [
        "gaussian",
        "gaussian(order=assign) > pca(0.9)",
        "gaussian(axis=rows)",
        "svd(4) > quantize(4)",
        "haar > svd(1)",
    ],
)
def test_every_tower_has_angles_or_none(save, tmp_path, tower):
    rng = np.random.default_rng(6)
    paths = [
        save({"a": rng.standard_normal((70, 64)).astype(np.float32)}, f"step{n}.safetensors") for n in (1, 2)
    ]
    run = rct_ray.run(paths, tmp_path / "out", tower=tower)
    for row in subspace_angles(*members_of([run])):
        assert 0 <= row["mean"] <= row["largest"] <= 90 + 1e-9


# The command.


def test_compare_prints_the_checkpoints(cli, save, tmp_path):
    steps(save, tmp_path)
    status, out, error = cli("compare", tmp_path / "run", "--level", 1)
    assert (status, error) == (0, "")
    assert "3 checkpoints: step0 (step 0), step10 (step 10), step30 (step 30)" in out
    for heading in ("width 16: 256 weights", "width 32: 3,520 weights", "model: 3,776 weights"):
        assert heading in out
    lines = out.split("tensors at level 1, by the change of R2")[1].splitlines()
    named = [line.split()[0] for line in lines if line.startswith((" a ", " b ", " c"))]
    assert named == ["b", "a", r"c[bold]\x1b"]
    (b,) = (line for line in lines if line.startswith(" b "))
    assert "█ 1.0000 +0." in b
    assert "\x1b" not in out


def test_compare_over_several_runs_as_json(cli, save, tmp_path):
    run = steps(save, tmp_path)
    single = rct_ray.run(tmp_path / "step0.safetensors", tmp_path / "single", tower="svd(2) > pca(0.9)")
    status, out, _ = cli("compare", tmp_path / "single", tmp_path / "run", "--json", "--by", "lift")
    assert status == 0
    said = json.loads(out, parse_constant=pytest.fail)
    assert [one["step"] for one in said["checkpoints"]] == [0, 0, 10, 30]
    assert said["checkpoints"][0]["directory"] == str(single.path)
    (b,) = (one for one in said["towers"] if one["name"] == "b")
    assert b["r2"][1][0] == b["r2"][1][1]
    last = run.levels_of(name="b", checkpoint="step30").to_pylist()[1]
    assert b["r2"][1][3] == last["r2"]
    assert b["change"]["r2"][1] == last["r2"] - b["r2"][1][0]
    assert {"scope", "name", "level", "largest", "mean"} <= set(said["angles"][0])


def test_runs_that_were_not_measured_alike_are_refused(cli, save, tmp_path):
    one = save({"a": np.eye(64, dtype=np.float32)})
    rct_ray.run(one, tmp_path / "one", tower="gaussian")
    for setting, value in (
        ("tower", "dct(4)"),
        ("metric", "amplitude"),
        ("null", "shuffle"),
        ("sample_rows", 9),
    ):
        rct_ray.run(one, tmp_path / setting, **{"tower": "gaussian", setting: value})
        status, out, error = cli("compare", tmp_path / "one", tmp_path / setting)
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert f"was measured with {setting} {value}, {tmp_path / 'one'} with" in error
    for arguments, word in (
        ((tmp_path / "one",), "holds one checkpoint"),
        ((tmp_path / "one", tmp_path / "none"), "no such directory"),
        ((tmp_path / "one", tmp_path / "one", "--by", "size"), "no figure 'size'"),
        ((tmp_path / "one", tmp_path / "one", "--level", 7), "no level 7"),
        ((), "DIR"),
    ):
        status, out, error = cli("compare", *arguments)
        assert (status, out, error.count("\n")) == (2, "", 1), error
        assert word in error
    with pytest.raises(ResultsError, match="one checkpoint"):
        members_of([open_run(tmp_path / "one")])


# Sparklines.


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, None, float("inf"), -1.0]) == "█··▁"
    assert sparkline([3, 3, 3]) == "▄▄▄"
    assert sparkline([]) == ""
    assert sparkline([None]) == "·"
    assert len(sparkline(list(range(1000)))) == 24
    assert sparkline(list(range(1000)))[::23] == "▁█"
    assert sparkline(list(range(1000)), 3) == "▁▅█"


def test_show_draws_a_run_of_several_checkpoints(cli, save, tmp_path):
    steps(save, tmp_path)
    status, out, _ = cli("show", tmp_path / "run")
    assert status == 0
    assert "L1 ▁" in out
