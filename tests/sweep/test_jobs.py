"""The entrypoints that a cluster runs: the command line on Ray, and exit as it does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import rct_ray
from rct_ray.results import open_run

from .conftest import write_step

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture
def job(environment, tmp_path):
    def run(name, *arguments):
        return subprocess.run(
            [sys.executable, str(JOBS / f"{name}.py"), *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.ray
def test_a_sweep_with_a_bad_checkpoint(job, steps, tmp_path):
    (steps / "step100.safetensors").write_bytes(b"no")
    done = job("sweep", "runs/step*.safetensors", "--out", "out", "--workers", "2")
    assert done.returncode == 1, done.stderr
    run = open_run(tmp_path / "out", verify=True)
    assert run.manifest["engine"]["name"] == "ray"
    expected = rct_ray.run(steps, tmp_path / "expected", engine="inprocess")
    assert run.levels.equals(expected.levels)
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events.count("unit done") == events.count("checkpoint done") == 4
    assert events.count("checkpoint failed") == 1


@pytest.mark.ray
def test_one_tower(job, steps, tmp_path):
    done = job("tower", steps / "step3.safetensors", "--out", "out", "--workers", "1", "--columns", "32")
    assert done.returncode == 0, done.stderr
    assert [listed["step"] for listed in open_run(tmp_path / "out").manifest["checkpoints"]] == [3]


def test_refusals(job, steps, tmp_path):
    write_step(tmp_path / "other.safetensors", 1)
    for given in (["runs"], ["runs/step*"], ["other.safetensors", "runs/step3.safetensors"], [], ["none*"]):
        done = job("tower", *given, "--out", "out")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "out").exists()
    done = job("sweep", "none*", "--out", "out")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["event"] == "run failed"
    assert "nothing meets none*" in json.loads(line)["text"]
