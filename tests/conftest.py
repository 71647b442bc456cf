"""What the end-to-end tests share: checkpoints small enough to check by hand, engines, and commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rct_ray

PACKAGE = Path(rct_ray.__file__).parent
ROOT = PACKAGE.parent


@pytest.fixture(scope="session")
def tiny():
    """The checkpoint that the package ships: one really trained block, bf16, 17 tensors, 7 of them matrices."""
    return PACKAGE / "data" / "tiny-step02500.safetensors"


@pytest.fixture(scope="session")
def tiny_weights(tiny):
    """Its matrices as float64, loaded by the safetensors library; by name, as the header has them."""
    assert ml_dtypes.bfloat16  # registers the type that the library looks for
    loaded = load_file(tiny)
    return {name: loaded[name].astype(np.float64) for name in sorted(loaded) if loaded[name].ndim == 2}


def _ordered(arrays):
    # The library sorts by alignment and then by name; these are all of one type, or their order is not asked.
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


@pytest.fixture
def save(tmp_path):
    """Write arrays as a safetensors file, by the library, and return its path."""

    def save_arrays(arrays, name="model.safetensors"):
        path = tmp_path / name
        save_file(_ordered(arrays), path)
        return path

    return save_arrays


@pytest.fixture(scope="session")
def zoo_weights():
    """One tensor of every kind: two widths, three types, a convolution, experts, a tensor of one row."""
    rng = np.random.default_rng(11)
    bell = np.exp(-0.5 * ((np.arange(48) - 20) / 9.0) ** 2)
    return {
        "a.weight": (rng.standard_normal((300, 48)) + rng.standard_normal((300, 1)) * bell).astype(
            np.float32
        ),
        "b.weight": (rng.standard_normal((170, 64)) * 0.02 + 0.01).astype(np.float32),
        "bias": rng.standard_normal(48).astype(np.float32),
        "conv.weight": rng.standard_normal((40, 3, 4, 4)).astype(np.float16),
        "counts": np.arange(96).reshape(2, 48),
        "d.weight": rng.standard_normal((90, 64)),
        "h.weight": rng.standard_normal((211, 48)).astype(ml_dtypes.bfloat16),
        "layer.experts.up": rng.standard_normal((5, 21, 64)).astype(np.float32),
        "one.weight": rng.standard_normal((1, 48)).astype(np.float32),
    }


@pytest.fixture(scope="session")
def zoo(zoo_weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "zoo.safetensors"
    save_file(_ordered(zoo_weights), path)
    return path


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray of three CPUs for the session; the Ray engine joins it."""
    from rct_ray.engine.ray_session import import_ray

    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    ray.init(
        address="local",
        num_cpus=3,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=256 << 20,
    )
    yield ray
    ray.shutdown()


@pytest.fixture
def cli(capsys):
    """Run a command line in this process: exit status, standard output and standard error."""
    import signal

    from rct_ray.cli import _status

    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments):
        capsys.readouterr()
        try:
            status = _status([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, handler)
        out, error = capsys.readouterr()
        return status, out, error

    return call


@pytest.fixture(scope="session")
def program():
    """The command line as a process of its own would start it, on the package under test."""
    return [sys.executable, "-c", "from rct_ray.cli import main; main()"]


@pytest.fixture(scope="session")
def environment():
    """Environment for processes: the package under test first, and none of Ray's settings."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RCT_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [plain.get("PYTHONPATH")])])
    return {**plain, "PYTHONPATH": path}


@pytest.fixture
def python(environment, tmp_path):
    """Run Python code in a fresh process and return what it prints, read as JSON."""

    def run(code, *arguments):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
