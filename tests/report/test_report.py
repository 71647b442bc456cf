"""What a run says, for people: sentences, tables, progress."""

import io
import json
import re
from dataclasses import dataclass

import numpy as np
import pytest
from rich.console import Console

import rct_ray
from rct_ray.report import progress
from rct_ray.report.summary import write_summary
from rct_ray.report.terminal import show
from rct_ray.report.words import conclusions, fixed_point, honest_level, percent


def level(number, params, **changes):
    row = {
        "level": number,
        "stage": "pca(0.95)" if number > 1 else "gaussian" if number else "weights",
        "weights": 131_072,
        "n_components": 8,
        "params": params,
        "cumulative_ratio": 131_072 / params,
        "r2": 0.5,
        "null_r2": 0.4,
        "participation_ratio": None,
        "null_participation_ratio": None,
        "svd_bound_r2": None,
        "n_keep": None,
        "bits_per_weight": 3.5 if number else 3.32,
        "fixed_point": False,
    }
    return row | changes


def tower(*changes):
    return [
        level(number, **{"params": 131_072 // 4**number, **changed}) for number, changed in enumerate(changes)
    ]


def test_a_fixed_point_that_was_found():
    levels = tower({}, {"fixed_point": True}, {"params": 40_000})
    assert fixed_point(levels) == 1
    said = conclusions(levels)[0]
    assert said.startswith("Fixed point: level 1, 32,768 parameters (4.0x of 131,072 weights)")
    assert "level 2 charges 40,000" in said


def test_a_fixed_point_that_was_not():
    levels = tower({}, {}, {})
    assert fixed_point(levels) is None
    said = conclusions(levels)[0]
    assert said.startswith("Fixed point: not within this tower.")
    assert "8,192" in said
    assert "level 1's 32,768" in said


def test_a_fixed_point_at_the_weights_themselves():
    said = conclusions(tower({"fixed_point": True}, {"params": 200_000}))[0]
    assert said.startswith("Fixed point: level 0, 131,072 parameters (1.0x")
    assert "level 1 charges 200,000" in said


def test_no_level_pays_for_itself():
    levels = tower({}, {"bits_per_weight": 3.6}, {"bits_per_weight": 3.4})
    assert honest_level(levels)["level"] == 0
    said = conclusions(levels)[1]
    assert said.startswith("Honest level: 0.")
    assert "3.32 bits each with no model, and 3.40 at the best level above (level 2)" in said


def test_a_level_that_pays():
    levels = tower({}, {"bits_per_weight": 3.0}, {"bits_per_weight": 3.0})
    assert honest_level(levels)["level"] == 1
    said = conclusions(levels)[1]
    assert said.startswith("Honest level: 1.")
    assert "3.00 bits" in said
    assert "3.32 with no model" in said


def test_above_and_below_chance():
    said = conclusions(tower({}, {"r2": 0.0298, "null_r2": 0.03125}, {"r2": 0.7, "null_r2": 0.4}))
    assert "keeps 2.98% of the energy, 0.14" in said[2]
    assert " below chance" in said[2]
    assert "3.12%" in said[2]
    assert "keeps 70.0% of the energy, 30.00" in said[3]
    assert " above chance" in said[3]
    assert len(said) == 4


def test_what_is_not_known_is_not_said():
    (said,) = conclusions(tower({}, {"null_r2": None}))[2:]
    assert said == "Level 1 (gaussian) keeps 50.0% of the energy."
    (said,) = conclusions(
        tower({}, {"participation_ratio": 2.5, "null_participation_ratio": 7.25, "svd_bound_r2": 0.9})
    )[2:]
    assert "participation ratio 2.50, 7.25 without structure" in said
    assert "90.0%" in said


def test_a_level_that_only_rotates_says_so():
    said = conclusions(tower({}, {}, {"n_keep": 8}))[3]
    assert "Level 2" in said
    assert "rotates" in said


def test_percentages():
    assert [percent(share) for share in (0.0, 0.02984, 0.25, 1.0)] == ["0.00%", "2.98%", "25.0%", "100.0%"]


# Terminal.


def printed(run, width=140):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(run, console)
    return console.file.getvalue()


@pytest.mark.parametrize("count", [1, 40, 41, 100])
def test_runs_of_few_and_many_tensors(save, tmp_path, count):
    rng = np.random.default_rng(0)
    arrays = {f"layer{n:03}": rng.standard_normal((12, 32)).astype(np.float32) for n in range(count)}
    run = rct_ray.run(save(arrays), tmp_path / "out")
    text = printed(run)
    assert f"{count} of {count} tensors measured" in text
    assert len(re.findall(r"^ layer\d+", text, re.MULTILINE)) == min(count, 40)
    assert (f"{count - 40} more in levels.parquet" in text) == (count > 40)
    assert text.rstrip().splitlines()[-1].startswith("•")
    if count > 40:
        lifts = {
            row["name"]: row["lift"] for row in run.levels_of(scope="tensor").to_pylist() if row["level"] == 1
        }
        best = sorted(lifts, key=lifts.get, reverse=True)[:40]
        assert re.findall(r"^ (layer\d+)", text, re.MULTILINE) == best


@pytest.mark.parametrize(
    "settings", [{"svd_bound": "never"}, {"tower": "gaussian(K=32)"}, {"preset": "paper67"}]
)
def test_columns_that_are_null(save, tmp_path, settings):
    arrays = {"zeros": np.zeros((600, 256), np.float32), "ones": np.ones((5, 256), np.float32)}
    run = rct_ray.run(save(arrays), tmp_path / "out", **settings)
    text = printed(run)
    assert "nan" not in text.lower()
    assert "None" not in text
    file = io.StringIO()
    write_summary(run, file)
    read = json.loads(file.getvalue(), parse_constant=pytest.fail)
    assert len(read["levels"]) == run.levels.num_rows


def test_one_width_is_not_said_twice(save, tmp_path):
    one = save({"a": np.ones((9, 32), np.float32)})
    assert "model:" not in printed(rct_ray.run(one, tmp_path / "one"))
    two = save({"a": np.ones((9, 32), np.float32), "b": np.ones((9, 64), np.float32)}, "two.safetensors")
    text = printed(rct_ray.run(two, tmp_path / "two"))
    assert re.findall(r"^(width \d+|model):", text, re.MULTILINE) == ["width 32", "width 64", "model"]


def test_several_checkpoints_get_a_line_each(save, tmp_path):
    paths = [save({"a": np.eye(32, dtype=np.float32) * n}, f"step{n}.safetensors") for n in (1, 2, 3)]
    text = printed(rct_ray.run(paths, tmp_path / "out"))
    assert [line.split()[:2] for line in text.splitlines() if line.startswith(" step")] == [
        ["step1", "1"],
        ["step2", "2"],
        ["step3", "3"],
    ]


# Progress.


@dataclass
class Sized:
    nbytes: int


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by two seconds whenever it is looked at."""
    times = iter(range(0, 10_000, 2))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(times)))


@pytest.mark.parametrize("terminal", [True, False])
def test_every_result_passes_as_it_comes(monkeypatch, terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(progress.sys, "stderr", stream)
    results = [Sized(10) for _ in range(30)]
    taken = []

    def source():
        for result in results:
            taken.append(result)
            yield result

    tracked = progress.track("[bold]\x1b[31mlabel", Sized(300), source())
    assert next(tracked) is results[0]
    assert len(taken) == 1
    assert [id(result) for result in tracked] == [id(result) for result in results[1:]]
    assert "\x1b[31mlabel" not in stream.getvalue()


@pytest.mark.usefixtures("clock")
def test_plain_lines_now_and_then(capsys):
    results = [Sized(10_000_000) for _ in range(10)]
    assert list(progress.track("model", Sized(100_000_000), results)) == results
    out, error = capsys.readouterr()
    assert out == ""
    lines = error.splitlines()
    # Every third look at the clock is more than five seconds after the last line; none when all is done.
    assert lines == [
        "model: 30 of 100 MB, 5 MB/s, 14 s left",
        "model: 60 of 100 MB, 5 MB/s, 8 s left",
        "model: 90 of 100 MB, 5 MB/s, 2 s left",
    ]


def test_a_run_that_is_quick_says_nothing(capsys):
    assert list(progress.track("model", Sized(0), [])) == []
    list(progress.track("model", Sized(10), [Sized(10)]))
    assert capsys.readouterr() == ("", "")


def test_printable():
    assert progress.printable("weight é 重み") == "weight é 重み"
    assert progress.printable("a\x1b]0;x\x07\n\r\t\u202e") == r"a\x1b]0;x\x07\n\r\t\u202e"
