"""Run all units of a checkpoint on a cluster and write down what travelled: checkpoint, address, outcome."""

import json
import pickle
import sys
import time
from pathlib import Path

import psutil

from rct_ray.api import plan_checkpoint
from rct_ray.config import RunConfig
from rct_ray.engine.ray_engine import RayEngine
from rct_ray.engine.ray_session import import_ray
from rct_ray.engine.shard import ShardTask
from rct_ray.engine.units import make_units


def main():
    """Run, and count."""
    checkpoint, address, outcome = sys.argv[1:]
    config = RunConfig()
    units = make_units(plan_checkpoint(checkpoint, config).shards)
    task = ShardTask(config.stages[0], config.block_bytes)
    ray = import_ray()
    seen = {"put": 0, "most_in_flight": 0, "largest_call": 0, "largest_result": 0}

    def put(*_, **__):
        seen["put"] += 1
        raise AssertionError("nothing is to be put")

    ray.put = put
    with RayEngine(2, address) as engine:
        for number, done in enumerate(engine.run(units, task)):
            in_flight = sum(len(slot.calls) for slot in engine._slots) + 1
            seen["most_in_flight"] = max(seen["most_in_flight"], in_flight)
            seen["largest_call"] = max(seen["largest_call"], len(pickle.dumps((done.unit, task))))
            for result in done.results:
                seen["largest_result"] = max(seen["largest_result"], len(pickle.dumps(result)))
            if number == len(units) - 3:
                seen["workers_before"] = _workers(done.results[0].worker)
        # The run goes on here, with towers to climb: the workers have nothing to do with that.
        end = time.monotonic() + 10
        while _workers("") and time.monotonic() < end:
            time.sleep(0.05)
        seen["workers_after"] = _workers("")
    Path(outcome).write_text(json.dumps(seen))


_known = {}


def _workers(name):
    """How many of the workers seen so far run; `name` is one of HOST:PID."""
    if name:
        siblings = psutil.Process(int(name.rpartition(":")[2])).parent().children()
        for process in siblings:
            if "ray::EncodeWorker" in " ".join(process.cmdline()):
                _known[process.pid] = process
    return sum(process.is_running() and process.status() != "zombie" for process in _known.values())


main()
