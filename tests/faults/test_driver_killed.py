"""SIGKILL of the process that drives a run, at any moment, and what --resume makes of it."""

import json
import random
import signal
import time

import pytest

import rct_ray

from .lab import alive, assert_absent, assert_one_line, assert_whole, named, units, wait_until

_KILLS = 10
_PATIENCE_S = 10


def _helpers(processes):
    return [*named(alive(processes), "ray::DashboardAgent"), *named(alive(processes), "ray::RuntimeEnvAgent")]


def test_killed_at_every_change_to_the_run_directory(tmp_path, lab, short_checkpoint):
    undisturbed = tmp_path / "undisturbed"
    rct_ray.run(short_checkpoint, undisturbed, workers=1)
    outcome = tmp_path / "outcome.json"
    folder = tmp_path / "runs"
    folder.mkdir()
    status, error = lab.script("kill_sweep.py", short_checkpoint, undisturbed, folder, outcome).finish(240)
    assert status == 0, error
    seen = json.loads(outcome.read_text())
    assert seen["kills"] > 30
    assert seen["resumed"] > 8
    # The manifest is there, the records are still being removed.
    assert seen["whole"] > 1


def test_killed_ten_times_in_a_row(lab, checkpoint, undisturbed):
    draw = random.Random(3)
    lab.faults(sleep=0.1)
    kept = 0
    for number in range(_KILLS):
        goal = len(lab.begun()) + draw.randint(1, 4)
        run = lab.cli(checkpoint, "--engine", "inprocess", *["--resume"][: bool(number)])
        run.wait_for(lambda goal=goal: len(lab.begun()) >= goal, what="shards")
        time.sleep(draw.random() * 0.1)  # anywhere between two units, and within
        run.send(signal.SIGKILL)
        run.finish()
        assert_absent(lab.out, killed=True)
        assert len(units(lab.out)) >= kept
        kept = len(units(lab.out))
    assert kept
    status, error = lab.cli(checkpoint).finish()
    assert status == 2
    assert "--resume" in assert_one_line(error)
    status, error = lab.resume(checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert f"{kept} of 19 units were done before and are skipped" in error
    assert_whole(lab.out, undisturbed)


@pytest.mark.ray
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_on_ray(lab, checkpoint, undisturbed, seed):
    draw = random.Random(seed)
    lab.faults(sleep=0.1)
    run = lab.cli(checkpoint, "--engine", "ray", "--workers", "2")
    goal = draw.randint(1, 15)
    run.wait_for(lambda: len(units(lab.out)) >= goal, what="units")
    time.sleep(draw.random() * 0.1)
    family = run.family()
    assert named(family, "ray::EncodeWorker")
    run.send(signal.SIGKILL)
    run.finish()
    assert_absent(lab.out, killed=True)
    # A local Ray goes with its driver, and nobody has to look after it. Two idle helpers of its node stay for
    # a minute: the time that they try to tell the node's head, which is gone, that the node is gone.
    try:
        wait_until(lambda: len(alive(family)) == len(_helpers(family)), _PATIENCE_S, f"{family} to end")
    finally:
        for process in alive(family):
            process.kill()
    assert lab.cli(checkpoint).finish()[0] == 2
    kept = len(units(lab.out))
    assert kept >= goal
    status, error = lab.resume(checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert f"{kept} of 19 units" in error
    assert_whole(lab.out, undisturbed)
