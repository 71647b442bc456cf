"""A sweep is one dataset, equal to the runs it is made of; a bad checkpoint does not stop the others."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import rct_ray
from rct_ray import CheckpointError, ResultsError
from rct_ray.engine import inprocess
from rct_ray.engine.units import Unit
from rct_ray.results import open_run
from rct_ray.sweep import SweepError

from .conftest import write_step

SETTINGS = {"engine": "inprocess", "workers": 2}


def digests(run):
    """Of every table but the one that says who did what and when."""
    return {
        output["path"]: output["sha256"] for output in run.manifest["outputs"] if output["table"] != "shards"
    }


def labels(run):
    return [listed["label"] for listed in run.manifest["checkpoints"]]


def test_one_dataset_in_order_of_steps(steps, tmp_path):
    run = rct_ray.run(steps / "step*.safetensors", tmp_path / "out", **SETTINGS)
    ordered = [3, 20, 100, 900, 1400]
    assert labels(run) == [f"step{step}" for step in ordered]
    assert list(dict.fromkeys(run.levels["step"].to_pylist())) == ordered
    assert not run.failed
    for step in ordered:
        alone = rct_ray.run(steps / f"step{step}.safetensors", tmp_path / str(step), **SETTINGS)
        assert run.levels_of(checkpoint=f"step{step}").equals(alone.levels)
        (listed,) = (listed for listed in run.manifest["checkpoints"] if listed["step"] == step)
        assert listed["files"] == alone.manifest["checkpoints"][0]["files"]
    assert open_run(tmp_path / "out", verify=True).shards.num_rows == 10


def test_steps_from_metadata_and_none(steps, tmp_path):
    write_step(steps / "step5.safetensors", 6, {"step": "1000"})
    write_step(steps / "final.safetensors", 7)
    run = rct_ray.run(steps / "*.safetensors", tmp_path / "out", columns=32, **SETTINGS)
    assert labels(run) == ["step3", "step20", "step100", "step900", "step5", "step1400", "final"]


@pytest.mark.parametrize("engine", ["inprocess", pytest.param("ray", marks=pytest.mark.ray)])
def test_workers_and_engines_change_no_bit(steps, tmp_path, request, monkeypatch, engine):
    if engine == "ray":
        request.getfixturevalue("ray_cluster")
    # Many units a checkpoint, so that they overlap.
    monkeypatch.setattr(
        "rct_ray.api.make_units", lambda shards: [Unit(shard.index, (shard,)) for shard in shards]
    )
    settings = {"shard_bytes": 4096, "tower": "svd(4) > pca(0.99)"}
    one = rct_ray.run(steps, tmp_path / "one", engine="inprocess", workers=1, **settings)
    other = rct_ray.run(steps, tmp_path / "other", engine=engine, workers=3, **settings)
    assert one.shards.num_rows == 80
    assert digests(one) == digests(other)


def test_units_of_all_checkpoints_are_scheduled_together(tmp_path, monkeypatch):
    """While one shard of the first checkpoint hangs, the others are done."""
    for seed in (1, 2, 3):
        write_step(tmp_path / "runs" / f"step{seed}.safetensors", seed)
    encode, done, others = inprocess.encode_shard, [], threading.Event()

    def hanging(shard, *arguments):
        label = Path(shard.entry.file.path).name
        if label == "step1.safetensors" and not done.count(label):
            assert others.wait(20)
        result = encode(shard, *arguments)
        done.append(label)
        if done.count("step2.safetensors") == done.count("step3.safetensors") == 2:
            others.set()
        return result

    monkeypatch.setattr(inprocess, "encode_shard", hanging)
    run = rct_ray.run(tmp_path / "runs", tmp_path / "out", **SETTINGS)
    assert done[-2:] == ["step1.safetensors"] * 2
    assert labels(run) == ["step1", "step2", "step3"]


# Bad checkpoints.


def missing(path):
    path.unlink()
    path.symlink_to("nowhere")


def truncated(path):
    os.truncate(path, path.stat().st_size - 100)


def lying(path):
    text = bytearray(path.read_bytes())
    text[:8] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(text)


def all_nan(path):
    save_file({"a.weight": np.full((20, 64), np.nan, np.float32)}, path)


def nothing_to_measure(path):
    save_file({"bias": np.ones(64, np.float32)}, path)


_BAD = [missing, truncated, lying, all_nan, nothing_to_measure]


@pytest.mark.parametrize("spoil", _BAD, ids=lambda spoil: spoil.__name__)
def test_one_bad_checkpoint(steps, tmp_path, cli, spoil):
    expected = rct_ray.run(
        [path for path in steps.iterdir() if path.name != "step100.safetensors"], tmp_path / "four"
    )
    spoil(steps / "step100.safetensors")
    out = tmp_path / "out"
    status, printed, error = cli("run", steps / "step*.safetensors", "--out", out, "--engine", "inprocess")
    assert status == 1
    assert "Traceback" not in error
    assert "step1400" in printed
    said = error.splitlines()
    assert said[-2] == "1 of 5 checkpoints could not be measured:"
    assert "step100.safetensors" in said[-1]
    run = open_run(out, verify=True)
    assert digests(run) == digests(expected)
    (failure,) = run.failed
    assert failure["path"] == str(steps / "step100.safetensors")
    assert failure["reason"]
    assert failure["error"] in ("CheckpointError", "NonFiniteError", "PlanError")
    status, _, error = cli("show", out)
    assert status == 0
    assert "step100.safetensors" in error
    assert not (out / "units").exists()


@pytest.mark.parametrize("spoil", _BAD, ids=lambda spoil: spoil.__name__)
def test_a_run_of_one_bad_checkpoint(steps, tmp_path, cli, spoil):
    path = steps / "step100.safetensors"
    spoil(path)
    for given in (path, str(steps / "step100*")):
        status, printed, error = cli("run", given, "--out", tmp_path / "out", "--engine", "inprocess")
        assert status == 2
        assert len(error.splitlines()) == 1
        assert not printed
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoil", [truncated, all_nan], ids=lambda spoil: spoil.__name__)
def test_all_bad(steps, tmp_path, cli, spoil):
    for path in steps.iterdir():
        spoil(path)
    status, _, error = cli("run", steps / "step*", "--out", tmp_path / "out", "--engine", "inprocess")
    assert status == 2
    (line,) = error.splitlines()
    assert "none of 5 checkpoints could be measured; the first: " in line
    assert not (tmp_path / "out").exists()
    with pytest.raises(SweepError):
        rct_ray.run(steps / "step*", tmp_path / "out")


@pytest.mark.parametrize("engine", ["inprocess", pytest.param("ray", marks=pytest.mark.ray)])
def test_one_that_changes_while_it_is_read(steps, tmp_path, request, engine):
    if engine == "ray":
        request.getfixturevalue("ray_cluster")
    write_step(steps / "step100.safetensors", 4, rows=3000)
    expected = rct_ray.run(
        [path for path in steps.iterdir() if path.name != "step100.safetensors"], tmp_path / "four"
    )
    told = []

    def change(event, values):
        told.append((event, values.get("checkpoint")))
        if event == "run started":
            truncated(steps / "step100.safetensors")

    run = rct_ray.run(steps, tmp_path / "out", engine=engine, workers=2, notice=change)
    assert digests(run) == digests(expected)
    (failure,) = run.failed
    assert failure["error"] == "CheckpointError"
    assert "step100.safetensors: " in failure["reason"]
    assert ("unit failed", "step100") in told
    assert not [path for path in (tmp_path / "out").rglob("*100*") if "step1400" not in path.name]


def test_one_that_fails_before_its_turn(steps, tmp_path, monkeypatch):
    """A unit that fails while an earlier checkpoint's results are taken is held against its own checkpoint."""
    encode, failed = inprocess.encode_shard, threading.Event()

    def first_waits(shard, *arguments):
        if shard.entry.file.path.endswith("step3.safetensors"):
            assert failed.wait(20)
        return encode(shard, *arguments)

    def hear(event, values):
        if event == "run started":
            truncated(steps / "step20.safetensors")
        if event == "unit failed":
            failed.set()

    monkeypatch.setattr(inprocess, "encode_shard", first_waits)
    run = rct_ray.run(steps, tmp_path / "out", notice=hear, **SETTINGS)
    assert labels(run) == ["step3", "step100", "step900", "step1400"]
    assert [Path(failure["path"]).name for failure in run.failed] == ["step20.safetensors"]


def test_strict_refuses_a_checkpoint_and_not_the_sweep(steps, tmp_path):
    save_file(
        {"a.weight": np.ones((20, 64), np.float32), "b.weight": np.full((20, 64), np.nan, np.float32)},
        steps / "step100.safetensors",
    )
    lenient = rct_ray.run(steps, tmp_path / "lenient", **SETTINGS)
    assert len(labels(lenient)) == 5
    strict = rct_ray.run(steps, tmp_path / "strict", strict=True, **SETTINGS)
    assert [failure["error"] for failure in strict.failed] == ["NonFiniteError"]
    assert len(labels(strict)) == 4


def test_a_run_directory_that_cannot_be_written_is_no_bad_checkpoint(steps, tmp_path, monkeypatch):
    def refuse(*_):
        raise ResultsError("no")

    monkeypatch.setattr("rct_ray.results.units.UnitStore.write", refuse)
    with pytest.raises(ResultsError):
        rct_ray.run(steps, tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


# Going on.


class StoppedError(RuntimeError):
    pass


def interrupted(paths, out, after, **settings):
    """A run that ends after some units, as an interrupt would end it."""
    count = 0

    def stop(event, values):
        nonlocal count
        count += event == "checkpoint done"
        if count == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        rct_ray.run(paths, out, notice=stop, **SETTINGS, **settings)


def resumed(paths, out, **settings):
    said, events = [], []
    run = rct_ray.run(
        paths,
        out,
        resume=True,
        say=said.append,
        notice=lambda *event: events.append(event),
        **SETTINGS,
        **settings,
    )
    return run, said, [values for event, values in events if event == "unit done"]


def test_units_are_taken_up(steps, tmp_path):
    expected = rct_ray.run(steps, tmp_path / "expected", **SETTINGS)
    out = tmp_path / "out"
    interrupted(steps, out, 2)
    kept = len(list((out / "units").glob("*/*.unit")))
    assert kept >= 2
    run, said, done = resumed(steps, out)
    assert said == [f"5 checkpoints: {kept} of 5 units were done before and are skipped"]
    assert len(done) == 5 - kept
    assert digests(run) == digests(expected)


def test_a_sweep_may_grow_shrink_and_change(steps, tmp_path):
    """Records are kept by what they are of: none of another checkpoint, or of this one before it changed."""
    out = tmp_path / "out"
    interrupted(steps, out, 5)
    (steps / "step900.safetensors").unlink()
    write_step(steps / "step3.safetensors", 30)
    write_step(steps / "step1.safetensors", 31)
    expected = rct_ray.run(steps, tmp_path / "expected", **SETTINGS)
    run, said, done = resumed(steps, out)
    assert said == ["5 checkpoints: 3 of 5 units were done before and are skipped"]
    assert sorted(values["checkpoint"] for values in done) == ["step1", "step3"]
    assert digests(run) == digests(expected)


def test_a_sweep_and_a_run_of_one_are_not_the_same(steps, tmp_path):
    out = tmp_path / "out"
    interrupted(steps, out, 2)
    with pytest.raises(ResultsError, match="cannot resume"):
        resumed(steps / "step3.safetensors", out)
    with pytest.raises(ResultsError, match="configuration seed"):
        resumed(steps, out, seed=8)


def test_a_failed_checkpoint_is_tried_again(steps, tmp_path):
    """What is mended between an interrupted sweep and its going on is measured."""
    out = tmp_path / "out"
    content = (steps / "step100.safetensors").read_bytes()
    truncated(steps / "step100.safetensors")
    interrupted(steps, out, 3)
    (steps / "step100.safetensors").write_bytes(content)
    run, _, _ = resumed(steps, out)
    assert not run.failed
    assert "step100" in labels(run)


# Levels too wide to square need the workers for passes of their own.


@pytest.mark.parametrize("engine", ["inprocess", pytest.param("ray", marks=pytest.mark.ray)])
def test_wide_levels(steps, tmp_path, request, engine):
    if engine == "ray":
        request.getfixturevalue("ray_cluster")
    run = rct_ray.run(steps, tmp_path / "out", engine=engine, workers=3, pca="randomized")
    alone = rct_ray.run(steps / "step20.safetensors", tmp_path / "alone", pca="randomized", **SETTINGS)
    assert run.levels_of(checkpoint="step20").equals(alone.levels)


def test_the_command_lines_default_directory(steps, tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "those.txt").write_text("runs\n")
    for given, name in (
        ("runs/step*.safetensors", "step.rct"),
        ("@those.txt", "those.rct"),
        ("runs", "runs.rct"),
    ):
        assert cli("run", given, "--columns", "32")[0] == 0
        assert len(open_run(tmp_path / name).manifest["checkpoints"]) == 5


def test_the_manifest_is_plain(steps, tmp_path):
    truncated(steps / "step3.safetensors")
    rct_ray.run(steps, tmp_path / "out", **SETTINGS)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest["failed"][0]) == {"path", "error", "reason"}
    assert set(manifest["checkpoints"][0]["seconds"]) == {"wait", "reduce", "tower", "write"}
    with pytest.raises(CheckpointError):
        rct_ray.run(steps / "step3.safetensors", tmp_path / "one")
