"""The same bytes, whoever does the work, however many they are, and whatever ends first."""

import pytest

import rct_ray

from .lab import assert_whole

_WORKERS = (1, 2, 3, 7)


@pytest.fixture(scope="module")
def mixed_undisturbed(room, mixed):
    rct_ray.run(mixed, room / "mixed-undisturbed", engine="inprocess", workers=1)
    return room / "mixed-undisturbed"


def test_in_process(lab, mixed, mixed_undisturbed):
    lab.faults(jitter=0.05)
    run = lab.script("many_runs.py", mixed, lab.out, "", *_WORKERS)
    status, error = run.finish()
    assert status == 0, error
    for workers in _WORKERS:
        assert_whole(lab.out / str(workers), mixed_undisturbed)


@pytest.mark.ray
def test_on_ray(lab, cluster, mixed, mixed_undisturbed):
    cluster.add(7)
    lab.faults(jitter=0.05)
    run = lab.script("many_runs.py", mixed, lab.out, cluster.address, *_WORKERS)
    status, error = run.finish(120)
    assert status == 0, error
    for workers in _WORKERS:
        assert_whole(lab.out / str(workers), mixed_undisturbed)
    assert len({shard["pid"] for shard in lab.begun()}) > 7
