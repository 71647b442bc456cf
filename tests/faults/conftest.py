"""Checkpoints with their undisturbed runs, a lab for each test, and one cluster for all."""

import shutil

import pytest

import rct_ray

from .lab import ClusterHost, Lab, write_checkpoint

# One unit each (two do not fit into one), a tensor of two shards, and small ones that share a unit.
_SHAPES = {
    **{f"layer{index:02d}": (8_300, 256) for index in range(16)},
    "embed": (66_000, 256),
    **{f"small{index:02d}": (80 + index, 128) for index in range(70)},
}


@pytest.fixture(scope="session")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def checkpoint(room):
    """About 107 MB of weights, 19 units."""
    return write_checkpoint(room / "model.safetensors", _SHAPES)


@pytest.fixture(scope="session")
def undisturbed(room, checkpoint):
    """The run directory of a run that nothing befell."""
    rct_ray.run(checkpoint, room / "undisturbed", engine="inprocess", workers=2)
    return room / "undisturbed"


@pytest.fixture
def own_checkpoint(tmp_path):
    """A smaller checkpoint, for a test to spoil; 8 units."""
    path = tmp_path / "model.safetensors"
    return write_checkpoint(path, {f"layer{index}": (8_300, 256) for index in range(8)}, seed=1)


@pytest.fixture
def own_undisturbed(own_checkpoint, tmp_path):
    """The run directory of a run of it that nothing befell."""
    rct_ray.run(own_checkpoint, tmp_path / "undisturbed", engine="inprocess", workers=2)
    return tmp_path / "undisturbed"


@pytest.fixture(scope="session")
def mixed(room):
    """Three widths in turn, so that many shards are of one width and end in any order."""
    shapes = {
        f"layer{index:02d}": (3_000 + 700 * (index % 5), (64, 96, 128)[index % 3]) for index in range(60)
    }
    return write_checkpoint(room / "mixed.safetensors", {**shapes, "layerx": (280_000, 64)}, seed=2)


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    yield lab
    lab.end()


@pytest.fixture(scope="session")
def cluster_host(tmp_path_factory):
    host = ClusterHost(tmp_path_factory.mktemp("cluster"))
    yield host
    host.end()


@pytest.fixture
def cluster(cluster_host, lab):
    """The cluster without a node but its head; its workers suffer the faults of this test's lab."""
    folder = cluster_host.faults_file.parent
    if folder.is_symlink():
        folder.unlink()
    folder.symlink_to(lab.faults_file.parent)
    yield cluster_host
    lab.end()
    cluster_host.clear()
    shutil.rmtree(lab.faults_file.parent)


@pytest.fixture(scope="session")
def short_checkpoint(room):
    """Three units."""
    return write_checkpoint(
        room / "short.safetensors", {f"layer{index}": (16_600, 128) for index in range(3)}
    )
