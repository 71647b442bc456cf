"""What the fault tests share: checkpoints, runs in processes of their own, and what must hold afterwards."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import rct_ray
from rct_ray.results import ResultsError, open_run

HERE = Path(__file__).parent
INJECTED = HERE / "injected"
SCRIPTS = HERE / "scripts"
# The command line, of the package under test.
PROGRAM = [sys.executable, "-c", "from rct_ray.cli import main; main()"]
ROOT = Path(rct_ray.__file__).parent.parent
# Everything that a run says of the weights; the table `shards` says who did what and when.
TABLES = ("levels.parquet", "tensors.parquet", "decoders.arrow")
# What an unfinished run may leave.
LEFTOVERS = {".rct-ray-unfinished", "unfinished.json", "units"}


def write_checkpoint(path, shapes, seed=0):
    """A safetensors file of normal bf16 weights, every tensor another."""
    header, end = {}, 0
    for name, (rows, width) in shapes.items():
        begin, end = end, end + 2 * rows * width
        header[name] = {"dtype": "BF16", "shape": [rows, width], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for scale, (rows, width) in enumerate(shapes.values(), start=1):
            values = rng.standard_normal((rows, width), np.float32) * np.float32(scale)
            file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return path


def wait_until(condition, timeout=60, what="it"):
    """Wait for a condition, and return what made it true."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s for {what}")
        time.sleep(0.003)
    return found


def units(out):
    """The records of finished units in a run directory."""
    return sorted((out / "units").glob("*/*.unit"))


def alive(processes):
    """Those that still run; the dead whom nobody has asked after do not."""

    def lives(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return [process for process in processes if lives(process)]


def named(processes, name):
    """Those among some processes that run under a name, such as ray::EncodeWorker."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if name in " ".join(process.cmdline()) or name in process.name():
                found.append(process)
    return found


class Process:
    """A process under test, with its output in files, and a session of its own."""

    def __init__(self, command, directory, env):
        self.out_file, self.error_file = directory / "stdout", directory / "stderr"
        with self.out_file.open("wb") as out, self.error_file.open("wb") as error:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                env=env,
                cwd=directory,
                start_new_session=True,
            )
        self.process = psutil.Process(self.popen.pid)

    @property
    def stdout(self):
        return self.out_file.read_text()

    @property
    def stderr(self):
        return self.error_file.read_text()

    def family(self):
        """All processes that came of it, without itself."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.process.children(recursive=True)
        return []

    def wait_for(self, condition, timeout=60, what="it"):
        """Wait for a condition; the process must not end before."""

        def met_or_ended():
            return condition() or self.popen.poll() is not None

        wait_until(met_or_ended, timeout, what)
        found = condition()
        assert found, f"ended with {self.popen.poll()} before {what}: {self.stderr}"
        return found

    def send(self, number, *, group=False):
        (os.killpg if group else os.kill)(self.popen.pid, number)

    def finish(self, timeout=90):
        """Its exit status and what it said on standard error."""
        self.popen.wait(timeout)
        return self.popen.returncode, self.stderr

    def end(self):
        processes = [*self.family(), self.process]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.popen.wait()


class Lab:
    """Starts runs under faults, and ends what they leave."""

    def __init__(self, directory):
        self.directory = directory
        self.out = directory / "out"
        self.faults_file = directory / "faults" / "rules.json"
        self.faults_file.parent.mkdir()
        self.log = directory / "log"
        self.log.mkdir()
        self._processes = []

    def faults(self, **rules):
        """Set what befalls the shards from now on."""
        text = json.dumps({**rules, "log": str(self.log)})
        temporary = self.faults_file.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self.faults_file)

    def go(self):
        """Let the held shards go on."""
        (self.faults_file.parent / "go").touch()

    def held(self):
        """Processes that hold a shard half read, and where."""
        return list(self.faults_file.parent.glob("held.*"))

    def begun(self, tensor=None):
        """Shards that were begun, in order: which tensor, which row, by whom."""
        shards = [json.loads(path.read_text() or "{}") for path in sorted(self.log.iterdir())]
        return [shard for shard in shards if shard and tensor in (None, shard["tensor"])]

    def start(self, *command, **env):
        directory = self.directory / f"process{len(self._processes)}"
        directory.mkdir()
        process = Process(command, directory, environment(self.faults_file, **env))
        self._processes.append(process)
        return process

    def cli(self, checkpoint, *options, **env):
        """Start `rct-ray run`."""
        return self.start(*PROGRAM, "run", checkpoint, "--out", self.out, *options, **env)

    def script(self, name, *arguments, **env):
        """Start one of `scripts`."""
        return self.start(sys.executable, SCRIPTS / name, *arguments, **env)

    def resume(self, checkpoint, *options, **env):
        """Mend everything, and go on with the run."""
        self.faults()
        return self.cli(checkpoint, "--resume", *options, **env).finish()

    def end(self):
        for process in self._processes:
            process.end()


def environment(faults_file, **more):
    """The environment of a process under test: none of Ray's settings but those that are given."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RCT_"))}
    path = os.pathsep.join([str(INJECTED), str(ROOT), *filter(None, [plain.get("PYTHONPATH")])])
    return {**plain, "PYTHONPATH": path, "RCT_FAULTS": str(faults_file), **more}


class ClusterHost:
    """A cluster in a process of its own, whose head has no CPU; its workers take faults from a fixed file."""

    def __init__(self, directory, script="cluster_host.py", *arguments):
        self.faults_file = directory / "faults" / "rules.json"
        with (directory / "cluster.log").open("wb") as log:
            self._popen = subprocess.Popen(
                [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(self.faults_file, RAY_USAGE_STATS_ENABLED="0"),
                start_new_session=True,
            )
        self.address = self._popen.stdout.readline().strip()
        assert self.address, (directory / "cluster.log").read_text()
        self._nodes = set()

    def add(self, cpus):
        number = int(self._ask(f"add {cpus}"))
        self._nodes.add(number)
        return number

    def nodes(self):
        """How many nodes an autoscaled cluster has besides its head."""
        return int(self._ask("nodes"))

    def kill(self, node):
        """End a node without a word."""
        assert self._ask(f"kill {node}") == "gone"
        self._nodes.remove(node)

    def clear(self):
        """End all nodes but the head."""
        for node in self._nodes:
            assert self._ask(f"remove {node}") == "gone"
        self._nodes.clear()
        self._ask("wait")

    def family(self):
        return psutil.Process(self._popen.pid).children(recursive=True)

    def end(self):
        family = self.family()
        self._popen.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(30)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.kill()
        self._popen.wait()

    def _ask(self, command):
        print(command, file=self._popen.stdin, flush=True)
        return self._popen.stdout.readline().strip()


def assert_whole(out, undisturbed):
    """The run is finished, nothing else is left, and it says what an undisturbed run says, to the bit."""
    open_run(out, verify=True)
    assert not {path.name for path in out.iterdir()} & LEFTOVERS
    for table in TABLES:
        assert (out / table).read_bytes() == (undisturbed / table).read_bytes(), table


def assert_same_tables(out, undisturbed):
    """A finished sweep says what an undisturbed one says, to the bit, and nothing else is left."""
    open_run(out, verify=True)
    files = {path.relative_to(undisturbed) for path in undisturbed.rglob("*") if path.is_file()}
    assert {path.relative_to(out) for path in out.rglob("*") if path.is_file()} == files
    compared = [path for path in files if path.parts[0] in ("levels", "tensors", "decoders")]
    assert len(compared) >= 3
    for path in compared:
        assert (out / path).read_bytes() == (undisturbed / path).read_bytes(), path


def assert_absent(out, *, killed=False):
    """No reader takes what is there for a run, and only a run's own leftovers are there."""
    with pytest.raises(ResultsError):
        open_run(out)
    if out.exists() and not killed:
        assert {path.name for path in out.iterdir()} <= LEFTOVERS


# What a busy machine may let pass before the fault: how far the run is, and what Ray's own core logs of lost nodes.
_BESIDE = re.compile(r"\d+ of \d+ MB, \d+ MB/s|^\[\d{4}-\d\d-\d\d [^]]*\] core_worker")


def assert_one_line(error, *, extra=0):
    """Standard error is one line, besides some that say what happens, and no traceback."""
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if not _BESIDE.search(line)]
    assert len(lines) == 1 + extra, error
    return lines[-1]
