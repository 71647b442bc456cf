"""Towers that begin with an order of columns, searched for many tensors at once."""

import numpy as np
import pytest

import rct_ray
from rct_ray import Tower

TOWER = "gaussian(K=3, order=assign) > pca(0.9)"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    generator = np.random.default_rng(5)
    weights = {
        f"layer{number}": generator.standard_normal((rows, width)).astype(np.float32)
        for number, (rows, width) in enumerate([(50, 40), (60, 24), (30, 40), (9, 40), (70, 24)])
    }
    weights["layer2"][3, 4] = np.nan
    path = tmp_path_factory.mktemp("orders") / "model.npz"
    np.savez(path, **weights)
    return path, weights


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    return rct_ray.run(checkpoint[0], tmp_path_factory.mktemp("runs") / "all", tower=TOWER)


def test_every_tensor_has_its_tower_in_the_checkpoints_order(run, checkpoint):
    rows = [row for row in run.levels.to_pylist() if row["scope"] == "tensor"]
    assert list(dict.fromkeys(row["name"] for row in rows)) == ["layer0", "layer1", "layer3", "layer4"]
    assert [row["level"] for row in rows] == [0, 1, 2] * 4
    status = {row["name"]: row["status"] for row in run.tensors.to_pylist()}
    assert status == {name: "nonfinite" if name == "layer2" else "used" for name in checkpoint[1]}


@pytest.mark.parametrize("name", ["layer0", "layer4"])
def test_a_tensor_measured_alone_has_the_same_figures(run, checkpoint, tmp_path, name):
    alone = rct_ray.run(checkpoint[0], tmp_path / "alone", tower=TOWER, include=(name,))
    one, all_ = (
        [row for row in table.levels.to_pylist() if row["scope"] == "tensor" and row["name"] == name]
        for table in (alone, run)
    )
    assert one == all_


def test_the_search_is_that_of_the_estimator(run, checkpoint):
    """The same seed, another way to the moments: the same order, and what it keeps to rounding."""
    tower = Tower(TOWER, seed=7).fit(checkpoint[1]["layer1"].astype(np.float64))
    rows = [row for row in run.levels.to_pylist() if row["scope"] == "tensor" and row["name"] == "layer1"]
    for row, level in zip(rows, tower.levels_, strict=True):
        assert row["r2"] == pytest.approx(level.r2, rel=1e-9)
    kept = run.decoder("tensor", "layer1", 1, "components")
    rebuilt = checkpoint[1]["layer1"].astype(np.float64) @ kept.T @ kept
    lost = np.sum((checkpoint[1]["layer1"] - rebuilt) ** 2)
    assert rows[1]["sse"] == pytest.approx(lost, rel=1e-9)
