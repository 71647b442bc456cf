"""A local Ray of ours starts no more than it needs, and ends with the run."""

import json
import subprocess
import sys

import pytest

_SCRIPT = """
import json, sys
import psutil
from ray._private.node import Node
import rct_ray

theirs = Node.start_api_server, Node.start_monitor
seen = []

def look(label, plan, results):
    for result in results:
        seen.extend(" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True))
        yield result

rct_ray.run(sys.argv[1], sys.argv[2], engine="ray", workers=1, progress=look)
left = [child.pid for child in psutil.Process().children(recursive=True) if child.status() != "zombie"]
same = theirs == (Node.start_api_server, Node.start_monitor)
print(json.dumps([sorted(set(seen)), left, same]))
"""


@pytest.mark.ray
def test_processes_of_a_local_ray(tiny, tmp_path, environment):
    command = [sys.executable, "-c", _SCRIPT, str(tiny), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    seen, left, same = json.loads(done.stdout.splitlines()[-1])
    assert any("/gcs_server" in line for line in seen)
    assert any("EncodeWorker" in line for line in seen)
    for needless in ("dashboard/dashboard.py", "monitor.py"):
        assert not [line for line in seen if needless in line and "log_monitor" not in line]
    assert left == []
    assert same
