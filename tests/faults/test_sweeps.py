"""Nodes of a cluster that go while a sweep runs: no unit is lost, and no bit changes."""

import json

import pytest

import rct_ray

from .lab import assert_one_line, assert_same_tables, units, write_checkpoint

pytestmark = pytest.mark.ray

_SHAPES = {"layer0": (8_300, 256), "layer1": (8_300, 256)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Four checkpoints of two units each."""
    folder = tmp_path_factory.mktemp("runs")
    for step in (1, 2, 3, 10):
        write_checkpoint(folder / f"step{step}.safetensors", _SHAPES, seed=step)
    return folder


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    rct_ray.run(runs, out, engine="inprocess", workers=2)
    return out


def test_a_node_is_killed(lab, cluster, runs, undisturbed):
    nodes = [cluster.add(1), cluster.add(1)]
    lab.faults(hold="layer1")
    run = lab.cli(runs, "--address", cluster.address, "--workers", "2", "--log-json")
    run.wait_for(
        lambda: len({held.name.split(".")[1] for held in lab.held()}) == 2, what="both workers to hold"
    )
    cluster.kill(nodes[0])
    lab.go()
    status, error = run.finish()
    assert status == 0, error
    assert_same_tables(lab.out, undisturbed)
    # Ray's own core may log a line about the node's objects between ours.
    events = [json.loads(line) for line in error.splitlines() if line.startswith("{")]
    done = [(event["checkpoint"], event["unit"]) for event in events if event["event"] == "unit done"]
    assert sorted(done) == sorted((f"step{step}", unit) for step in (1, 2, 3, 10) for unit in (0, 1))
    retried = [event for event in events if event["event"] == "retry"]
    assert retried
    assert {event["checkpoint"] for event in retried} <= {"step1", "step2", "step3", "step10"}


def test_a_shard_that_kills_its_workers_is_named_with_its_checkpoint(
    lab, cluster, runs, undisturbed, tmp_path
):
    """All other units of all checkpoints are kept, and the sweep can go on."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for path in runs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    write_checkpoint(folder / "step2.safetensors", {"layer0": (8_300, 256), "fatal": (8_300, 256)}, seed=2)
    cluster.add(2)
    lab.faults(exit="fatal")
    status, error = lab.cli(folder, "--address", cluster.address, "--workers", "2").finish()
    assert status == 1, error
    line = assert_one_line(error, extra=4)
    assert "shard 1 (fatal, rows 0 to 8300) of step2: its worker died at each of 4 tries" in line
    assert "7 of 8 units are done and kept, go on with --resume" in line
    assert len(units(lab.out)) == 7
    status, error = lab.resume(folder, "--engine", "inprocess")
    assert status == 0, error
    assert "4 checkpoints: 7 of 8 units were done before" in error
    for table in ("levels", "decoders"):
        for path in (undisturbed / table).iterdir():
            if "step2" not in path.name:
                assert (lab.out / table / path.name).read_bytes() == path.read_bytes()
