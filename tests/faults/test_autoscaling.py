"""An autoscaler adds nodes while units of a sweep wait, and takes them back: none is held by what is left on it."""

import pytest

import rct_ray

from .lab import ClusterHost, assert_same_tables, wait_until, write_checkpoint

pytestmark = pytest.mark.ray

_NODES, _SLOW_S = 3, 45


@pytest.fixture
def host(lab):
    host = ClusterHost(lab.directory, "autoscaled_host.py", _NODES)
    yield host
    host.end()


@pytest.mark.timeout(600)
def test_from_no_node_to_three_and_back(lab, host):
    folder = lab.directory / "runs"
    folder.mkdir()
    for step in range(4):
        # The moments of the wide one are larger than what travels with an answer, so that they lie on their node.
        shapes = {"first": (8_300, 256), "wide": (4_100, 512)}
        write_checkpoint(folder / f"step{step}.safetensors", shapes, seed=step)
    write_checkpoint(folder / "step9.safetensors", {"layer": (100, 256)}, seed=9)
    undisturbed = lab.directory / "undisturbed"
    rct_ray.run(folder, undisturbed, engine="inprocess", workers=2)
    assert host.nodes() == 0
    # Until all nodes are there, no unit ends; the last one takes its time.
    lab.faults(hold="*", sleep=_SLOW_S)
    run = lab.cli(folder, "--address", host.address, "--workers", _NODES)
    run.wait_for(
        lambda: len({held.name.split(".")[1] for held in lab.held()}) == _NODES, 240, "a worker on each node"
    )
    assert host.nodes() == _NODES
    lab.go()
    run.wait_for(lambda: host.nodes() == 1, _SLOW_S + 30, "idle nodes to go while the run goes on")
    status, error = run.finish(120)
    assert status == 0, error
    assert_same_tables(lab.out, undisturbed)
    wait_until(lambda: host.nodes() == 0, 120, "the last node to go")
