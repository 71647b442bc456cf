"""SIGINT and SIGTERM: exit 130, in a line or two, with what was done kept and no process left."""

import signal

import pytest

from .lab import alive, assert_absent, assert_whole, named, units, wait_until

both = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


def assert_interrupted(lab, run, family):
    status, error = run.finish(30)
    assert status == 130, error
    assert "Traceback" not in error
    said = error.splitlines()
    assert said[-1] == "interrupted"
    kept = len(units(lab.out))
    assert said[-2] == (
        f"{kept} finished units are kept in {lab.out}: go on with --resume" if kept else "nothing was written"
    )
    assert len(said) <= 3
    assert_absent(lab.out)
    wait_until(lambda: not alive(family), 10, f"{family} to end")
    return kept


@both
def test_in_process(lab, checkpoint, undisturbed, number):
    lab.faults(sleep=0.1)
    run = lab.cli(checkpoint, "--engine", "inprocess")
    run.wait_for(lambda: len(units(lab.out)) >= 4, what="four units")
    run.send(number, group=number == signal.SIGINT)
    assert assert_interrupted(lab, run, run.family()) >= 4
    status, error = lab.resume(checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert_whole(lab.out, undisturbed)


@both
def test_before_the_first_unit(lab, checkpoint, number):
    lab.faults(sleep=0.5)
    run = lab.cli(checkpoint, "--engine", "inprocess")
    run.wait_for(lab.begun, what="a shard")
    run.send(number)
    if not assert_interrupted(lab, run, []):
        assert not lab.out.exists()


@pytest.mark.ray
@both
def test_on_ray_of_its_own(lab, own_checkpoint, own_undisturbed, number):
    lab.faults(hold="layer[4-7]")
    run = lab.cli(own_checkpoint, "--engine", "ray", "--workers", "2")
    run.wait_for(lambda: len(lab.held()) == 2 and len(units(lab.out)) >= 3, what="both workers to hold")
    family = run.family()
    assert named(family, "ray::EncodeWorker")
    # Ctrl-C in a terminal reaches everything that runs there.
    run.send(number, group=number == signal.SIGINT)
    assert assert_interrupted(lab, run, family) >= 3
    status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert_whole(lab.out, own_undisturbed)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "process"),
    [(signal.SIGTERM, "gcs_server"), (signal.SIGTERM, "raylet"), (signal.SIGINT, "raylet")],
    ids=str,
)
def test_while_ray_starts(lab, checkpoint, number, process):
    run = lab.cli(checkpoint, "--engine", "ray", "--workers", "2")
    run.wait_for(lambda: named(run.family(), f"/{process}"), what=process)
    family = run.family()
    run.send(number, group=number == signal.SIGINT)
    assert_interrupted(lab, run, family)
    assert not lab.out.exists()


@pytest.mark.ray
def test_on_a_cluster(lab, cluster, own_checkpoint, own_undisturbed):
    cluster.add(2)
    lab.faults(hold="layer[4-7]")
    run = lab.cli(own_checkpoint, "--address", cluster.address, "--workers", "2")
    run.wait_for(lambda: len(lab.held()) == 2 and len(units(lab.out)) >= 3, what="both workers to hold")
    workers = named(cluster.family(), "ray::EncodeWorker")
    assert len(workers) == 2
    run.send(signal.SIGTERM)
    # The cluster stays, its workers are let go in mid-shard.
    assert assert_interrupted(lab, run, [*run.family(), *workers]) >= 3
    status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert_whole(lab.out, own_undisturbed)


@pytest.mark.ray
def test_while_the_cluster_has_no_room(lab, cluster, own_checkpoint):
    run = lab.script("impatient.py", own_checkpoint, lab.out, cluster.address, 60)
    run.wait_for(lambda: "waiting for the cluster" in run.stderr, what="the run to say that it waits")
    assert "a worker needs 1 CPU; the cluster has 0, 0 of them free" in run.stderr
    run.send(signal.SIGINT)
    assert assert_interrupted(lab, run, run.family()) == 0
    assert not lab.out.exists()
