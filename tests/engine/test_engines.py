"""The same tables, to the bit, from every engine, any number of workers and any order of completion."""

import random
import threading
import time

import numpy as np
import pytest

import rct_ray
from rct_ray.checkpoint import CheckpointError, RowReader

TABLES = ("levels", "tensors", "decoders")
IN_PROCESS = [("inprocess", workers) for workers in (1, 2, 3, 7)]
ON_RAY = [pytest.param("ray", workers, marks=pytest.mark.ray) for workers in (1, 2, 3)]
# What is run: settings that make many shards, each with another way to keep what the tower needs.
CASES = {
    "spectra": {"shard_bytes": 2000},
    "amplitude": {"shard_bytes": 1000, "metric": "amplitude", "svd_bound": "never"},
    "sampled": {"shard_bytes": 1000, "sample_rows": 100},
    "columns": {"shard_bytes": 4000, "tower": "svd(3) > pca(0.9)"},
    "rows": {"shard_bytes": 4000, "tower": "dct > gaussian(axis=rows, order=svd) > pca(0.9) > quantize(3)"},
    "shared": {"shard_bytes": 4000, "tower": "svd(3, share=width) > pca(0.9)"},
}


@pytest.fixture
def engine(request):
    """Bring up what an engine needs before it is asked for."""
    if request.node.get_closest_marker("ray"):
        request.getfixturevalue("ray_cluster")


def contents(run):
    """The bytes of every file that says something of the weights."""
    digests = {output["path"]: output["sha256"] for output in run.manifest["outputs"]}
    return {path: digest for path, digest in digests.items() if not path.startswith("shards")}


@pytest.fixture(scope="session")
def expected(zoo, tmp_path_factory):
    """Each case on one thread."""
    room = tmp_path_factory.mktemp("expected")
    return {
        case: rct_ray.run(zoo, room / case, engine="inprocess", workers=1, **settings)
        for case, settings in CASES.items()
    }


def assert_equal(run, expected):
    for table in TABLES:
        assert getattr(run, table).equals(getattr(expected, table)), table
    assert contents(run) == contents(expected)
    assert set(contents(run)) == {"levels.parquet", "tensors.parquet", "decoders.arrow"}


@pytest.mark.parametrize(("name", "workers"), IN_PROCESS + ON_RAY)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("engine")
def test_tables_are_equal_to_the_bit(zoo, expected, tmp_path, case, name, workers):
    run = rct_ray.run(zoo, tmp_path / "out", engine=name, workers=workers, **CASES[case])
    assert run.shards.num_rows > 30
    assert run.manifest["engine"] == {"name": name, "workers": workers}
    assert run.shards["shard"].to_pylist() == list(range(run.shards.num_rows))
    assert_equal(run, expected[case])


def test_the_shipped_checkpoint_in_shards_of_a_few_rows(tiny, tmp_path):
    settings = {"shard_bytes": 16 << 10, "svd_bound": "never", "engine": "inprocess"}
    one = rct_ray.run(tiny, tmp_path / "one", workers=1, **settings)
    seven = rct_ray.run(tiny, tmp_path / "seven", workers=7, **settings)
    assert one.shards.num_rows > 100
    assert_equal(seven, one)


def test_shards_that_finish_out_of_order_in_process(zoo, expected, tmp_path, monkeypatch):
    finished, read, delays, lock = [], RowReader.read, random.Random(0), threading.Lock()

    def slow(self, start, stop, out):
        with lock:
            delay = delays.choice((0, 0.01, 0.03))
        time.sleep(delay)
        block = read(self, start, stop, out)
        finished.append((self._entry.name, start))
        return block

    # Units of one shard each, so that any order of shards can come about.
    monkeypatch.setattr("rct_ray.api.make_units", one_shard_units)
    monkeypatch.setattr(RowReader, "read", slow)
    run = rct_ray.run(zoo, tmp_path / "out", engine="inprocess", workers=7, **CASES["spectra"])
    order = list(zip(run.shards["tensor"].to_pylist(), run.shards["row_start"].to_pylist(), strict=True))
    assert sorted(finished) == sorted(order)
    assert finished != order
    assert_equal(run, expected["spectra"])


@pytest.mark.ray
def test_shards_that_finish_out_of_order_on_ray(zoo, expected, tmp_path, monkeypatch, ray_cluster):
    order, chance, wait = [], random.Random(1), ray_cluster.wait

    def shuffled(references, **options):
        ready, _ = wait(references, num_returns=len(references), timeout=20)
        chosen = chance.choice(ready)
        order.append(references.index(chosen))
        return [chosen], [reference for reference in references if reference is not chosen]

    monkeypatch.setattr("rct_ray.api.make_units", one_shard_units)
    monkeypatch.setattr(ray_cluster, "wait", shuffled)
    run = rct_ray.run(zoo, tmp_path / "out", engine="ray", workers=3, **CASES["spectra"])
    assert any(order)
    assert_equal(run, expected["spectra"])


def one_shard_units(shards):
    from rct_ray.engine.units import Unit

    return [Unit(shard.index, (shard,)) for shard in shards]


@pytest.mark.parametrize(
    ("name", "workers"), [("inprocess", 3), pytest.param("ray", 2, marks=pytest.mark.ray)]
)
@pytest.mark.usefixtures("engine")
def test_a_file_that_changes_under_the_run_is_refused_alike(save, tmp_path, name, workers):
    path = save({f"w{index}": np.ones((300, 64), np.float32) for index in range(20)})

    def then_truncate(label, plan, results):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 4)
        return results

    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        rct_ray.run(path, out, engine=name, workers=workers, shard_bytes=4000, progress=then_truncate)
    assert not out.exists()


def test_a_run_that_fails_does_not_wait_for_the_shards_in_flight(save, tmp_path, monkeypatch):
    read, begun, failed = RowReader.read, threading.Event(), []

    def slow(self, start, stop, out):
        if self._entry.name == "slow":
            begun.set()
            time.sleep(0.1)
        return read(self, start, stop, out)

    def fail(label, plan, results):
        yield next(iter(results))
        assert begun.wait(20)
        failed.append(time.monotonic())
        raise ZeroDivisionError

    # The slow shard has a hundred blocks.
    path = save({"a": np.ones((9, 32), np.float32), "slow": np.ones((6400, 32), np.float32)})
    monkeypatch.setattr("rct_ray.api.make_units", one_shard_units)
    monkeypatch.setattr(RowReader, "read", slow)
    with pytest.raises(ZeroDivisionError):
        rct_ray.run(
            path,
            tmp_path / "out",
            engine="inprocess",
            workers=2,
            block_bytes=1,
            svd_bound="never",
            progress=fail,
        )
    assert time.monotonic() - failed[0] < 5
