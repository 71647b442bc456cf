"""Nodes of the cluster that are killed while units run on them."""

import pytest

from .lab import assert_absent, assert_one_line, assert_whole, units

pytestmark = pytest.mark.ray


def test_with_another_left(lab, cluster, own_checkpoint, own_undisturbed):
    nodes = [cluster.add(1), cluster.add(1)]
    lab.faults(hold="layer[2-7]")
    run = lab.cli(own_checkpoint, "--address", cluster.address, "--workers", "2")
    run.wait_for(
        lambda: len({held.name.split(".")[1] for held in lab.held()}) == 2, what="both workers to hold"
    )
    cluster.kill(nodes[0])
    lab.go()
    status, error = run.finish()
    assert status == 0, error
    assert "a worker died and is replaced" in error
    assert "Traceback" not in error
    assert_whole(lab.out, own_undisturbed)


def test_with_none_left_until_one_joins(lab, cluster, own_checkpoint, own_undisturbed):
    node = cluster.add(1)
    lab.faults(hold="layer[4-7]")
    run = lab.cli(own_checkpoint, "--address", cluster.address, "--workers", "1")
    run.wait_for(lab.held, what="a shard that is half read")
    kept = len(units(lab.out))
    cluster.kill(node)
    lab.go()
    said = "waiting for the cluster: a worker needs 1 CPU; the cluster has 0, 0 of them free"
    run.wait_for(lambda: said in run.stderr, what="the run to say that it waits")
    assert_absent(lab.out, killed=True)
    assert len(units(lab.out)) >= kept > 1
    cluster.add(1)
    status, error = run.finish()
    assert status == 0, error
    assert "Traceback" not in error
    assert_whole(lab.out, own_undisturbed)


def test_patience_ends(lab, cluster, own_checkpoint):
    """With no CPU at all the run ends, and names what it needs; nothing is left."""
    run = lab.script("impatient.py", own_checkpoint, lab.out, cluster.address, 2)
    status, error = run.finish(40)
    assert status == 1, error
    line = assert_one_line(error, extra=1)
    assert "waiting for the cluster" in error
    assert line == (
        "rct-ray: no worker could be started in 2 s: a worker needs 1 CPU; the cluster has 0, 0 of them free"
    )
    assert not lab.out.exists()


def test_patience_ends_after_a_loss(lab, cluster, own_checkpoint, own_undisturbed):
    """So it does when the last node goes; the units that were done are kept."""
    node = cluster.add(1)
    lab.faults(hold="layer[4-7]")
    run = lab.script("impatient.py", own_checkpoint, lab.out, cluster.address, 2)
    run.wait_for(lab.held, what="a shard that is half read")
    kept = len(units(lab.out))
    cluster.kill(node)
    status, error = run.finish(40)
    assert status == 1, error
    assert "no worker could be started in 2 s" in error.splitlines()[-1]
    assert len(units(lab.out)) >= kept > 1
    kept = len(units(lab.out))
    status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert f"{kept} of 8 units" in error
    assert_whole(lab.out, own_undisturbed)
