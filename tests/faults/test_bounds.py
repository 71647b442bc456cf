"""What is in flight is bounded, the driver sees no weights, and idle workers go."""

import json
import threading
import time

import pytest

from rct_ray.api import plan_checkpoint
from rct_ray.config import RunConfig
from rct_ray.engine import inprocess
from rct_ray.engine.shard import ShardTask
from rct_ray.engine.units import UnitDone, make_units

_MOST_OF_A_CALL = 20_000
_MOST_OF_A_RESULT = 1 << 20


@pytest.mark.parametrize("workers", [1, 3])
def test_in_process(checkpoint, monkeypatch, workers):
    """A driver that is slow to take results is not run over by them."""
    config = RunConfig()
    todo = make_units(plan_checkpoint(checkpoint, config).shards)
    running = most = done = 0
    lock = threading.Lock()

    def encode(shard, *_):
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
            done += 1
        return shard.index

    monkeypatch.setattr(inprocess, "encode_shard", encode)
    with inprocess.InProcessEngine(workers) as engine:
        taken = 0
        for outcome in engine.run(todo, ShardTask(config.stages[0], config.block_bytes)):
            assert isinstance(outcome, UnitDone)
            taken += len(outcome.unit.shards)
            if taken < 8:
                time.sleep(0.05)
                assert done - taken <= 2 * workers
    assert taken == sum(len(unit.shards) for unit in todo) == done
    assert most == workers


@pytest.mark.ray
def test_on_ray(lab, cluster, checkpoint):
    cluster.add(2)
    outcome = lab.directory / "outcome.json"
    run = lab.script("bounds.py", checkpoint, cluster.address, outcome)
    status, error = run.finish()
    assert status == 0, error
    seen = json.loads(outcome.read_text())
    assert seen["put"] == 0
    assert 2 < seen["most_in_flight"] <= 4
    # A call carries the description of its shards, a result their moments: neither grows with the weights.
    assert seen["largest_call"] < _MOST_OF_A_CALL * 2
    assert seen["largest_result"] < _MOST_OF_A_RESULT
    assert seen["workers_before"] == 2
    assert seen["workers_after"] == 0
