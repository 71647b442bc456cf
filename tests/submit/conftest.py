"""A real Ray head with its dashboard and Jobs API, one for the session of this folder, and a tunnel to it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


def free_ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def answers(url):
    try:
        with urllib.request.urlopen(f"{url}/api/jobs/", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def end(processes):
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=10)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


@pytest.fixture(scope="session")
def head():
    """URL of the dashboard of a head of two CPUs; its processes, and no others, are ended."""
    # Short: sockets lie in it, and their paths have at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="rct", dir="/tmp"))
    port, dashboard, agent, client, metrics = free_ports(5)
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RCT_"))}
    # As in an activated environment: a job's `python` and Ray's `pip` are looked up.
    plain["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), plain["PATH"]])
    plain["RAY_USAGE_STATS_ENABLED"] = "0"
    # A token that an earlier Ray of this user left in the home directory would be asked of everybody.
    plain["RAY_AUTH_MODE"] = "disabled"
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
        *("--num-gpus=0", "--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        *(f"--metrics-export-port={metrics}", "--min-worker-port=0", "--max-worker-port=0"),
        *(f"--temp-dir={folder}", "--object-store-memory=100000000", "--include-log-monitor=false"),
    ]
    log = folder / "head.log"
    with log.open("wb") as file:
        # In the checkout, whose code must not be what a job runs.
        started = subprocess.Popen(command, env=plain, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    parent, family = psutil.Process(started.pid), []
    try:
        url = f"http://127.0.0.1:{dashboard}"
        deadline = time.monotonic() + 120
        while not answers(url):
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        family = parent.children(recursive=True)
        yield url
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            # Those that came since: workers, and the drivers of jobs.
            family += [parent, *parent.children(recursive=True)]
        started.send_signal(signal.SIGTERM)
        end(family)
        started.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def no_ray_variables(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


class Tunnel:
    """A proxy to a head that cuts streams of logs after some bytes, or stalls them, or refuses everything."""

    def __init__(self, target, cut_after, stall):
        self.target, self.cut_after, self.stall = target, cut_after, stall
        self.cuts, self.closed = 0, False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.closed:
                client.close()
            else:
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, socket.create_connection(self.target) as head, contextlib.suppress(OSError):
            request = client.recv(65536)
            head.sendall(request)
            threading.Thread(target=self._pump, args=(client, head), daemon=True).start()
            tail = b"/logs/tail" in request.split(b"\r\n")[0]
            seen = 0
            while data := head.recv(4096):
                seen += len(data)
                client.sendall(data)
                if tail and seen > self.cut_after:
                    self.cuts += 1
                    if self.stall:
                        time.sleep(60)
                    client.shutdown(socket.SHUT_RDWR)
                    return
            client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)

    def close(self):
        self._server.close()


@pytest.fixture
def tunnel(head):
    made = []

    def make(cut_after, *, stall=False):
        host, _, port = head.removeprefix("http://").rpartition(":")
        made.append(Tunnel((host, int(port)), cut_after, stall))
        return made[-1]

    yield make
    for each in made:
        each.close()
