"""Ray workers that die: replaced, their shards tried again, and the run ended where that is of no use."""

import signal

import pytest

from rct_ray.results import open_run

from .lab import assert_absent, assert_one_line, assert_whole, named, units

pytestmark = pytest.mark.ray


def attempts(out):
    shards = open_run(out).shards
    return dict(zip(shards["tensor"].to_pylist(), shards["attempt"].to_pylist(), strict=True))


def test_killed_in_mid_shard_twice(lab, cluster, own_checkpoint, own_undisturbed):
    cluster.add(2)
    lab.faults(hold="layer3")
    run = lab.cli(own_checkpoint, "--address", cluster.address, "--workers", "2")
    for _ in range(2):
        held = run.wait_for(lab.held, what="a shard that is half read")[0]
        pid = int(held.name.split(".")[1])
        victim = next(p for p in named(cluster.family(), "ray::EncodeWorker") if p.pid == pid)
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
        held.unlink()
    run.wait_for(lab.held, what="the third try")
    lab.go()
    status, error = run.finish()
    assert status == 0, error
    assert error.count("a worker died and is replaced") == 2
    assert "Traceback" not in error
    assert_whole(lab.out, own_undisturbed)
    tried = attempts(lab.out)
    assert tried.pop("layer3") == 2
    # What waited behind it was begun anew once, without another death.
    assert sorted(tried.values()) in ([0] * 7, [0] * 6 + [1])


def test_dies_at_every_try_of_one_shard(lab, cluster, own_checkpoint, own_undisturbed):
    cluster.add(2)
    lab.faults(exit="layer3")
    run = lab.cli(own_checkpoint, "--address", cluster.address, "--workers", "2")
    status, error = run.finish()
    assert status == 1, error
    line = assert_one_line(error, extra=4)
    assert error.count("a worker died and is replaced") == 4
    assert "shard 3 (layer3, rows 0 to 8300): its worker died at each of 4 tries" in line
    assert "7 of 8 units are done and kept, go on with --resume" in line
    assert len(lab.begun("layer3")) == 4
    assert_absent(lab.out)
    assert len(units(lab.out)) == 7
    status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert "7 of 8 units were done before" in error
    assert_whole(lab.out, own_undisturbed)
    tried = attempts(lab.out)
    assert sorted(tried.values()) in ([0] * 8, [0] * 7 + [1])


def test_dies_at_every_try_of_a_shard_among_many(lab, cluster, checkpoint, undisturbed):
    """Small shards travel together; all of their unit but the one that kills is innocent."""
    cluster.add(2)
    lab.faults(exit="small20")
    status, error = lab.cli(checkpoint, "--address", cluster.address, "--workers", "2").finish()
    assert status == 1, error
    line = error.splitlines()[-1]
    assert "(small20, rows 0 to 100): its worker died" in line
    assert len(units(lab.out)) == 18
    status, error = lab.resume(checkpoint, "--address", cluster.address, "--workers", "2")
    assert status == 0, error
    assert_whole(lab.out, undisturbed)


def test_survives_the_last_try(lab, cluster, checkpoint, undisturbed):
    """The shards of a unit that killed three workers are done one by one, and still make that unit."""
    cluster.add(2)
    lab.faults(exit="small20", times=3)
    status, error = lab.cli(checkpoint, "--address", cluster.address, "--workers", "2").finish()
    assert status == 0, error
    assert error.count("a worker died and is replaced") == 3
    assert len(lab.begun("small20")) == 4
    assert_whole(lab.out, undisturbed)
    assert attempts(lab.out)["small20"] == attempts(lab.out)["small19"] == 3


def test_dies_at_every_start(lab, cluster, own_checkpoint):
    """Workers that can't even be started, of a cluster without the package say, end the run."""
    cluster.add(2)
    lab.faults(start="exit")
    status, error = lab.cli(own_checkpoint, "--address", cluster.address, "--workers", "2").finish(60)
    assert status == 1, error
    assert "workers can't start, 8 died in a row: " in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not lab.out.exists()


def test_fails_at_every_start(lab, cluster, own_checkpoint):
    cluster.add(2)
    lab.faults(start="raise")
    status, error = lab.cli(own_checkpoint, "--address", cluster.address, "--workers", "2").finish(60)
    assert status == 1, error
    assert "a worker can't start: " in assert_one_line(error)
    assert "No module named 'rct_ray_there'" in error
    assert "Traceback" not in error
    assert not lab.out.exists()
