"""What a worker asks of the cluster: one CPU, and the memory that the largest unit needs."""

import json
import time

import pytest

import rct_ray
from rct_ray import EngineError, RunConfig, plan_checkpoint
from rct_ray.engine import ray_engine
from rct_ray.engine.footprint import worker_bytes
from rct_ray.engine.shard import ShardTask
from rct_ray.engine.units import make_units

from .conftest import write_step

_MIB = 1 << 20


def asked(path, **settings):
    config = RunConfig(**settings)
    plan = plan_checkpoint(path, config)
    return worker_bytes(make_units(plan.shards), ShardTask(config.stages[0], config.block_bytes))


def test_nothing_but_a_process_and_its_blocks(tmp_path):
    path = write_step(tmp_path / "step1.safetensors", 1)
    assert asked(path) == 320 * _MIB
    assert asked(path, block_bytes=64 * _MIB) >= (256 + 64) * _MIB
    assert worker_bytes([], ShardTask(RunConfig().stages[0], _MIB)) == 256 * _MIB


def test_moments_of_wide_matrices(tmp_path):
    described = {"dtype": "BF16", "shape": [100, 8192], "data_offsets": [0, 200 * 8192]}
    header = json.dumps({"w": described}).encode()
    path = tmp_path / "wide.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 200 * 8192)
    moments = 8 * 8192**2
    assert asked(path, svd_bound="never") < 512 * _MIB
    # While it is summed up, when it is a result, and on its way.
    assert 3 * moments < asked(path, svd_bound="always") < 4 * moments
    assert asked(path, tower="svd(4)", driver_memory=4 << 30) > 3 * moments


@pytest.mark.ray
def test_a_cluster_without_the_memory_is_named(steps, tmp_path, monkeypatch, ray_cluster):
    # What an earlier test's workers had is known to be free a moment after they are gone.
    until = time.monotonic() + 20
    while ray_cluster.available_resources().get("CPU", 0) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    monkeypatch.setattr(ray_engine, "worker_bytes", lambda *_: 1 << 45)
    monkeypatch.setattr(ray_engine, "_SAY_AFTER_S", 0.5)
    monkeypatch.setattr(ray_engine.RayEngine.__init__, "__defaults__", (None, None, 1.0, None))
    said = []
    with pytest.raises(EngineError, match=r"and 32768\.00 GiB of memory, of which \d+\.\d\d are free"):
        rct_ray.run(steps, tmp_path / "out", engine="ray", workers=2, say=said.append)
    assert len(said) == 1
    assert not (tmp_path / "out").exists()
