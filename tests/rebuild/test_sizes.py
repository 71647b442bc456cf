"""What the code of each level takes in bytes."""

import json

import numpy as np
import pytest

import rct_ray


def test_sizes_by_hand(save, tmp_path):
    rng = np.random.default_rng(0)
    path = save({"w": rng.standard_normal((100, 64)).astype(np.float32), "bias": np.ones(7, np.float32)})
    rct_ray.run(path, tmp_path / "run", tower="gaussian(K=4, order=svd) > pca(1)")
    sizes = rct_ray.code_sizes(tmp_path / "run")
    assert [one.level for one in sizes] == [0, 1, 2]
    header = path.stat().st_size - 4 * (6400 + 7)
    assert {(one.unchanged, one.header, one.original) for one in sizes} == {(28, header, path.stat().st_size)}
    # Weights at 16 bits; 4 amplitudes a row; 4 scores a row, 4 x 4 components and a mean of 4.
    assert [one.numbers for one in sizes] == [2 * 6400, 2 * 400, 2 * (400 + 16 + 4)]
    # log2(64!) = 296 bits.
    assert [one.side for one in sizes] == [0, 37, 37]
    assert sizes[1].total == 2 * 400 + 37 + 28 + header
    assert sizes[0].r2 == 1


def test_the_sum_over_tensors_is_that_of_the_tables(cli, zoo, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "run", tower="svd(4) > pca(0.9)")
    rows = [row for row in run.levels_of("tensor").to_pylist() if row["level"] == 2]
    (found,) = (one for one in rct_ray.code_sizes(tmp_path / "run") if one.level == 2)
    assert found.numbers == 2 * sum(row["params"] for row in rows)
    kept = 1 - sum(row["sse"] for row in rows) / sum(row["sst"] for row in rows)
    assert found.r2 == pytest.approx(kept)
    status, printed, error = cli("size", tmp_path / "run")
    assert (status, error) == (0, "")
    assert f"{found.total:,}" in printed
    assert f"{zoo.stat().st_size:,}" in printed
    status, printed, _ = cli("size", tmp_path / "run", "--json")
    assert [one["total"] for one in json.loads(printed)] == [
        one.total for one in rct_ray.code_sizes(tmp_path / "run")
    ]
