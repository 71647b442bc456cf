"""Weights rebuilt from a run, against the tables and against towers climbed the slow way."""

import json
import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rct_ray
from rct_ray import RebuildError
from tests.engine.reference import gaussians, tower

TOWERS = [
    "gaussian > pca(0.95) > pca(0.9)",
    "gaussian(K=6, width=0.5) > dct(4) > pca(0.9)",
    "dct(5) > haar(3)",
    "haar(6) > pca(0.9) > svd(2)",
    "random(8) > gaussian(4)",
    "svd(5) > pca(0.9)",
    "svd(4, share=width) > pca(0.9)",
    "pca(0.9) > gaussian(3)",
    "gaussian(K=6, order=assign) > pca(0.9)",
    "gaussian(K=6, order=svd)",
    "gaussian(K=4, fit=shared) > pca(0.9)",
    "gaussian(K=4, order=assign, signs=no, fit=shared)",
]


def matrix(name, array):
    """Rows as the product folds them, float64."""
    wide = array.astype(np.float64)
    return wide.reshape(-1, wide.shape[-1]) if "experts" in name else wide.reshape(len(wide), -1)


def r2(weights, rebuilt):
    return 1 - ((weights - rebuilt) ** 2).sum() / (weights**2).sum()


def expected(run, level):
    return {row["name"]: row["r2"] for row in run.levels_of("tensor").to_pylist() if row["level"] == level}


@pytest.mark.parametrize("metric", ["isometric", "amplitude"])
@pytest.mark.parametrize("text", TOWERS)
def test_rebuilt_weights_have_the_r2_of_the_tables(zoo, zoo_weights, tmp_path, text, metric):
    # One row makes least squares exact at some levels of some towers; it is tested by itself.
    run = rct_ray.run(zoo, tmp_path / "run", tower=text, metric=metric)
    for level in range(1, text.count(">") + 2):
        (out,) = rct_ray.reconstruct(
            tmp_path / "run", tmp_path / f"{level}.safetensors", level, dtype="float64"
        )
        rebuilt, figures = load_file(out), expected(run, level)
        assert set(figures) == {name for name, array in zoo_weights.items() if array.ndim > 1} - {"counts"}
        for name, figure in figures.items():
            assert rebuilt[name].dtype == np.float64
            assert rebuilt[name].shape == zoo_weights[name].shape
            found = r2(matrix(name, zoo_weights[name]), matrix(name, rebuilt[name]))
            assert found == pytest.approx(figure, abs=1e-9), (name, level)


@pytest.mark.parametrize("metric", ["isometric", "amplitude"])
def test_rebuilt_weights_are_those_of_the_slow_reference(save, tmp_path, metric):
    weights = np.random.default_rng(3).standard_normal((80, 48)) + np.linspace(-1, 1, 48)
    path = save({"w": weights})
    rct_ray.run(path, tmp_path / "run", tower="gaussian(6) > pca(0.95) > pca(0.95)", metric=metric)
    levels = tower(weights, gaussians(48, 6), metric, pcas=2)
    for level in (1, 2, 3):
        (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / f"{level}.safetensors", level)
        np.testing.assert_allclose(load_file(out)["w"], levels[level].rebuilt, atol=1e-10)


def test_types_and_names_are_kept_and_what_is_in_no_tower_is_equal(zoo, zoo_weights, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "run", exclude=("b.*",))
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1)
    rebuilt = load_file(out)
    assert list(rebuilt) == list(load_file(zoo))
    copied = {"bias", "counts", "b.weight"}
    figures = expected(run, 1)
    for name, array in zoo_weights.items():
        assert rebuilt[name].dtype == array.dtype
        if name in copied:
            assert rebuilt[name].tobytes() == array.tobytes()
        elif array.dtype == np.float32:
            found = r2(matrix(name, array), matrix(name, rebuilt[name]))
            assert found == pytest.approx(figures[name], abs=1e-6)
    assert rebuilt["h.weight"].dtype == ml_dtypes.bfloat16
    assert not np.array_equal(rebuilt["a.weight"], zoo_weights["a.weight"])


def test_level_0_is_a_copy(tiny, tmp_path):
    rct_ray.run(tiny, tmp_path / "run")
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 0)
    rebuilt, original = load_file(out), load_file(tiny)
    assert {name: array.tobytes() for name, array in rebuilt.items()} == {
        name: array.tobytes() for name, array in original.items()
    }


def test_the_metadata_are_kept_and_say_what_it_is(save, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": np.ones((8, 32), np.float32)}, path, metadata={"format": "pt", "step": "7"})
    rct_ray.run(path, tmp_path / "run")
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1)
    raw = out.read_bytes()
    said = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert (said["format"], said["step"], said["rct_ray.level"]) == ("pt", "7", "1")
    assert said["rct_ray.checkpoint"] == "model"
    assert len(said["rct_ray.run"]) == 64


def test_tensors_that_are_not_finite_are_copied(save, tmp_path):
    weights = np.random.default_rng(0).standard_normal((2, 10, 32)).astype(np.float32)
    broken = weights[0].copy()
    broken[3, 4] = np.nan
    path = save({"bad": broken, "good": weights[1], "zeros": np.zeros((5, 32), np.float32)})
    rct_ray.run(path, tmp_path / "run")
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 2)
    rebuilt = load_file(out)
    assert rebuilt["bad"].tobytes() == broken.tobytes()
    assert not rebuilt["zeros"].any()


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (3, 40)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_odd_shapes_and_scales(save, tmp_path, shape, scale):
    weights = np.random.default_rng(1).standard_normal(shape) * scale
    path = save({"w": weights})
    run = rct_ray.run(path, tmp_path / "run", tower="gaussian > pca(0.95) > pca(0.95)")
    for level in (1, 2, 3):
        (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / f"{level}.safetensors", level)
        assert r2(weights, load_file(out)["w"]) == pytest.approx(expected(run, level)["w"], abs=1e-9)


def test_values_beyond_the_largest_number_of_the_type_become_that(save, tmp_path):
    weights = np.full((6, 32), 65_504, np.float16)
    weights[:, 0] = -65_504
    path = save({"w": weights})
    rct_ray.run(path, tmp_path / "run", tower="dct(31)")
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1)
    assert np.isfinite(load_file(out)["w"]).all()


def test_many_blocks_give_what_one_gives(tiny, tmp_path, monkeypatch):
    rct_ray.run(tiny, tmp_path / "run")
    (one,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "one.safetensors", 2, dtype="float64")
    monkeypatch.setattr("rct_ray.rebuild.weights._BLOCK", 10_000)
    (many,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "many.safetensors", 2, dtype="float64")
    first, second = load_file(one), load_file(many)
    for name in first:
        # A product of fewer rows may take another path through BLAS: the last bits, no more.
        np.testing.assert_allclose(second[name].astype(float), first[name].astype(float), rtol=0, atol=1e-14)


@pytest.mark.parametrize("text", ["pca(0.9) > pca(0.9)", "dct(150) > pca(0.8)"])
def test_components_that_were_found_by_passes_over_the_rows(save, tmp_path, text):
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 200)) + 0.1 * rng.standard_normal(
        (300, 200)
    )
    path = save({"w": weights.astype(np.float32)})
    run = rct_ray.run(path, tmp_path / "run", tower=text, pca="randomized")
    assert run.levels["pca_method"].to_pylist().count("randomized")
    for level in (1, 2):
        (out,) = rct_ray.reconstruct(
            tmp_path / "run", tmp_path / f"{level}.safetensors", level, dtype="float64"
        )
        found = r2(load_file(path)["w"].astype(float), load_file(out)["w"])
        assert found == pytest.approx(expected(run, level)["w"], abs=1e-9)


def test_memory_is_bounded_by_a_block_of_rows(save, tmp_path):
    rows = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    path = save({"w": np.tile(rows, (16, 1)), "copied": np.tile(rows.ravel(), 16)})
    rct_ray.run(path, tmp_path / "run", tower="gaussian > pca(0.9)")
    rct_ray.reconstruct(tmp_path / "run", tmp_path / "once.safetensors", 2)
    tracemalloc.start()
    try:
        rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A block as float32 and float64, rebuilt as both, and 8 MiB of what is copied; either tensor has 64 MiB.
    assert peak < 36 << 20


# Several files.


def test_shards_have_an_index_and_hold_the_same(zoo, tmp_path):
    rct_ray.run(zoo, tmp_path / "run")
    (whole,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "whole.safetensors", 1)
    directory = tmp_path / "sharded"
    directory.mkdir()
    paths = rct_ray.reconstruct(tmp_path / "run", directory / "model.safetensors", 1, max_shard_size=40_000)
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    assert paths[-1].name == "model.safetensors.index.json"
    assert sorted({*index["weight_map"].values()}) == [path.name for path in paths[:-1]]
    assert paths[0].name == f"model-00001-of-{len(paths) - 1:05}.safetensors"
    assert sorted(path.name for path in directory.iterdir()) == sorted(path.name for path in paths)
    expected_arrays, seen = load_file(whole), {}
    for path in paths[:-1]:
        arrays = load_file(path)
        assert len(arrays) == 1 or sum(array.nbytes for array in arrays.values()) <= 40_000
        assert all(index["weight_map"][name] == path.name for name in arrays)
        seen |= arrays
    assert {name: array.tobytes() for name, array in seen.items()} == {
        name: array.tobytes() for name, array in expected_arrays.items()
    }
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in seen.values())
    opened = rct_ray.open_checkpoint(directory)
    assert {entry.name for entry in opened.tensors} == set(seen)
    assert rct_ray.verify(tmp_path / "run", zoo, directory / "model.safetensors").agrees


def test_a_checkpoint_of_shards_is_rebuilt(zoo, zoo_weights, tmp_path):
    directory = tmp_path / "sharded"
    directory.mkdir()
    half = len(zoo_weights) // 2
    names = list(zoo_weights)
    for number, part in enumerate((names[:half], names[half:])):
        save_file(
            {name: np.ascontiguousarray(zoo_weights[name]) for name in part},
            directory / f"{number}.safetensors",
        )
    rct_ray.run(directory, tmp_path / "run", tower="svd(4)")
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1)
    assert rct_ray.verify(tmp_path / "run", directory, out).agrees


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_of_numpy_are_rebuilt(tmp_path, compressed):
    rng = np.random.default_rng(5)
    arrays = {
        "w": rng.standard_normal((50, 32)),
        "f": np.asfortranarray(rng.standard_normal((50, 32)).astype(np.float32)),
        "big": rng.standard_normal((9, 32)).astype(">f4"),
        "bias": rng.standard_normal(32).astype(np.float32),
        "flags": np.array([True, False]),
    }
    path = tmp_path / "model.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    run = rct_ray.run(path, tmp_path / "run", tower="dct(4) > pca(0.9)")
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 2)
    rebuilt, figures = load_file(out), expected(run, 2)
    for name in ("w", "f", "big"):
        assert r2(arrays[name].astype(float), rebuilt[name].astype(float)) == pytest.approx(
            figures[name], abs=1e-6
        )
    assert np.array_equal(rebuilt["bias"], arrays["bias"])
    assert np.array_equal(rebuilt["flags"], arrays["flags"])


def test_values_lie_at_multiples_of_their_size(save, tmp_path):
    rng = np.random.default_rng(0)
    path = save({"a": rng.standard_normal((3, 33)).astype(np.float16), "b": rng.standard_normal((4, 32))})
    rct_ray.run(path, tmp_path / "run")
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1)
    for entry in rct_ray.open_checkpoint(out).tensors:
        assert entry.offset % (entry.nbytes // math.prod(entry.shape)) == 0


def test_a_run_over_several_needs_a_label(save, tmp_path):
    rng = np.random.default_rng(0)
    paths = [save({"w": rng.standard_normal((20, 32))}, f"step{step}.safetensors") for step in (1, 2)]
    run = rct_ray.run(paths, tmp_path / "run")
    with pytest.raises(RebuildError, match="over 2 checkpoints"):
        rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1)
    with pytest.raises(RebuildError, match="no checkpoint 'step3'"):
        rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1, checkpoint="step3")
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1, checkpoint="step2")
    (figure,) = (row["r2"] for row in run.levels_of("tensor", "w", "step2").to_pylist() if row["level"] == 1)
    assert r2(load_file(paths[1])["w"], load_file(out)["w"]) == pytest.approx(figure, abs=1e-9)
    assert rct_ray.verify(tmp_path / "run", paths[1], out).agrees
