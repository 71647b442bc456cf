"""The public functions: what they take, what they return, what they refuse."""

import json

import numpy as np
import pytest

import rct_ray
from rct_ray import ConfigError, PlanError, ResultsError, RunConfig, TowerSyntaxError


def without_shards(run):
    return [output for output in run.manifest["outputs"] if output["table"] != "shards"]


def test_names_are_there():
    for name in rct_ray.__all__:
        assert getattr(rct_ray, name).__name__ == name
    assert set(rct_ray.__all__) <= set(dir(rct_ray))
    with pytest.raises(AttributeError, match="no attribute 'compress'"):
        rct_ray.compress  # noqa: B018


def test_run_gives_what_open_run_gives(zoo, tmp_path):
    run = rct_ray.run(zoo, tmp_path / "out")
    again = rct_ray.open_run(tmp_path / "out", verify=True)
    assert run.manifest == again.manifest
    assert run.levels.equals(again.levels)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "decoders.arrow",
        "levels.parquet",
        "manifest.json",
        "shards.parquet",
        "tensors.parquet",
    ]


def test_a_configuration_and_its_fields_are_the_same(zoo, tmp_path):
    config = RunConfig(tower="haar(4)", metric="amplitude", include=("a.*",))
    one = rct_ray.run(zoo, tmp_path / "one", config)
    two = rct_ray.run(str(zoo), str(tmp_path / "two"), tower="haar(4)", metric="amplitude", include=("a.*",))
    assert without_shards(one) == without_shards(two)
    assert one.manifest["configuration_digest"] == two.manifest["configuration_digest"] == config.digest
    assert RunConfig(tower="haar(5)").digest != config.digest
    with pytest.raises(ConfigError, match="not both"):
        rct_ray.run(zoo, tmp_path / "three", config, seed=3)


def test_the_manifest_says_what_was_done(tiny, tmp_path):
    run = rct_ray.run(tiny, tmp_path / "out", seed=5, engine="inprocess", workers=3)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest == run.manifest
    assert manifest["engine"] == {"name": "inprocess", "workers": 3}
    assert manifest["configuration"]["seed"] == 5
    (checkpoint,) = manifest["checkpoints"]
    assert (checkpoint["label"], checkpoint["step"]) == ("tiny-step02500", 2500)
    assert checkpoint["path"] == str(tiny)
    assert [file["bytes"] for file in checkpoint["files"]] == [tiny.stat().st_size]
    assert set(run.levels["step"].to_pylist()) == {2500}


def test_seeds_move_nulls_and_samples_but_no_other_figure(zoo, tmp_path):
    one, two = (rct_ray.run(zoo, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    dull = ["null_r2", "null_participation_ratio", "lift"]
    assert one.levels.drop_columns(dull).equals(two.levels.drop_columns(dull))
    assert not one.levels.equals(two.levels)
    one, two = (rct_ray.run(zoo, tmp_path / f"s{seed}", seed=seed, sample_rows=50) for seed in (1, 2))
    assert one.levels["r2"] != two.levels["r2"]


def test_several_checkpoints_are_one_run(zoo, zoo_weights, save, tmp_path):
    other = save(
        {name: zoo_weights[name] * 2 for name in ("a.weight", "d.weight")}, "other-step7.safetensors"
    )
    run = rct_ray.run([zoo, other], tmp_path / "out")
    # In order of steps; what is of no known step comes last.
    assert list(dict.fromkeys(run.levels["checkpoint"].to_pylist())) == ["other-step7", "zoo"]
    for path, label in ((zoo, "zoo"), (other, "other-step7")):
        alone = rct_ray.run(path, tmp_path / label)
        assert run.levels_of(checkpoint=label).equals(alone.levels)
    assert sorted(path.name for path in (tmp_path / "out" / "levels").iterdir()) == [
        "other-step7.parquet",
        "zoo.parquet",
    ]
    assert set(run.levels_of(checkpoint="other-step7")["step"].to_pylist()) == {7}


def test_checkpoints_of_the_same_name_are_told_apart_by_their_path(zoo, tmp_path):
    twin = tmp_path / "elsewhere" / zoo.name
    twin.parent.mkdir()
    twin.write_bytes(zoo.read_bytes())
    run = rct_ray.run([zoo, twin], tmp_path / "out", columns=48)
    labels = [listed["label"] for listed in run.manifest["checkpoints"]]
    assert labels == [str(zoo.resolve()), str(twin.resolve())]
    a, b = (run.levels_of(checkpoint=label).drop_columns("checkpoint") for label in labels)
    assert a.equals(b)


def test_a_directory_of_shards_is_one_checkpoint(zoo_weights, save, tmp_path):
    (tmp_path / "m").mkdir()
    halves = [("a.weight", "b.weight"), ("h.weight", "d.weight")]
    for number, names in enumerate(halves):
        save({name: zoo_weights[name] for name in names}, f"m/part{number}.safetensors")
    run = rct_ray.run(tmp_path / "m", tmp_path / "out")
    rows = run.tensors.to_pylist()
    assert {row["name"] for row in rows} == {"a.weight", "b.weight", "d.weight", "h.weight"}
    assert {row["name"] for row in rows if row["file"].endswith("part1.safetensors")} == set(halves[1])
    whole = save({name: zoo_weights[name] for name in sum(halves, ())}, "whole.safetensors")
    expected = rct_ray.run(whole, tmp_path / "whole")
    for row in run.levels_of(scope="tensor").to_pylist():
        (same,) = (
            other
            for other in expected.levels_of(scope="tensor", name=row["name"]).to_pylist()
            if other["level"] == row["level"]
        )
        assert row | {"checkpoint": "whole"} == same


def test_progress_sees_every_result(zoo, tmp_path):
    seen = []

    def progress(label, plan, results):
        for result in results:
            seen.append((label, result.index, result.nbytes))
            yield result

    run = rct_ray.run(zoo, tmp_path / "out", shard_bytes=4000, progress=progress)
    assert [index for _, index, _ in seen] == run.shards["shard"].to_pylist()
    assert {label for label, _, _ in seen} == {"zoo"}
    assert [size for *_, size in seen] == run.shards["bytes"].to_pylist()


def test_inspect_reads_headers_only(zoo, tmp_path):
    seen = rct_ray.inspect(zoo, columns=48)
    assert json.loads(json.dumps(seen)) == seen
    assert len(seen["tensors"]) == 9
    taken = {tensor["name"]: tensor for tensor in seen["tensors"] if tensor["selected"]}
    assert taken.keys() == {"a.weight", "h.weight", "conv.weight", "one.weight"}
    assert (seen["selected"], seen["rows"], seen["weights"]) == (4, 552, 552 * 48)
    assert seen["bytes"] == sum(tensor["bytes"] for tensor in taken.values())
    assert all((tensor["reason"] is None) == tensor["selected"] for tensor in seen["tensors"])
    run = rct_ray.run(zoo, tmp_path / "out", columns=48)
    assert {row["name"] for row in run.tensors.to_pylist() if row["status"] == "used"} == taken.keys()


def test_a_plan_cuts_every_row_into_exactly_one_shard(zoo):
    plan = rct_ray.plan_checkpoint(zoo, RunConfig(shard_bytes=3000))
    rows = {}
    for index, shard in enumerate(plan.shards):
        assert shard.index == index
        assert shard.nbytes <= 3000
        rows.setdefault(shard.entry.name, []).extend(range(shard.start, shard.stop))
    assert {name: len(found) for name, found in rows.items()} == {
        entry.name: entry.rows for entry in plan.selection.taken
    }
    assert all(found == list(range(len(found))) for found in rows.values())
    assert plan.nbytes == sum(entry.nbytes for entry in plan.selection.taken)


def test_a_sampled_plan_draws_as_numpy_does(zoo):
    plan = rct_ray.plan_checkpoint(zoo, RunConfig(sample_rows=60, seed=3, shard_bytes=3000, columns=64))
    starts, total = {}, 0
    for entry in plan.selection.taken:
        starts[entry.name], total = total, total + entry.rows
    drawn = np.concatenate([starts[shard.entry.name] + shard.rows for shard in plan.shards])
    expected = np.random.default_rng(3).choice(total, 60, replace=False)
    assert drawn.tolist() == sorted(expected.tolist())


@pytest.mark.parametrize(
    ("error", "settings"),
    [
        (ConfigError, {"metric": "manhattan"}),
        (ConfigError, {"preset": "paper1"}),
        (ConfigError, {"sample_rows": 0}),
        (ConfigError, {"shard_bytes": 0}),
        (ConfigError, {"engine": "threads"}),
        (ConfigError, {"workers": 0}),
        (ConfigError, {"engine": "inprocess", "address": "10.0.0.1:6379"}),
        (TowerSyntaxError, {"tower": "gaussian > pca(2)"}),
        (PlanError, {"columns": 49}),
        (PlanError, {"tower": "gaussian(K=49)"}),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(zoo, tmp_path, error, settings):
    with pytest.raises(error) as caught:
        rct_ray.run(zoo, tmp_path / "out", **settings)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, ValueError)
    assert not (tmp_path / "out").exists()


def test_no_checkpoint_and_the_same_twice(zoo, tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint"):
        rct_ray.run([], tmp_path / "out")
    run = rct_ray.run([zoo, zoo], tmp_path / "out", columns=48)
    assert [listed["label"] for listed in run.manifest["checkpoints"]] == ["zoo"]


def test_a_taken_directory_is_left_alone(zoo, tmp_path):
    rct_ray.run(zoo, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    with pytest.raises(ResultsError, match="holds another run"):
        rct_ray.run(zoo, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_a_failure_leaves_nothing_behind(zoo, tmp_path):
    def fail(label, plan, results):
        yield next(iter(results))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rct_ray.run(zoo, tmp_path / "deep" / "out", shard_bytes=3000, progress=fail)
    assert not (tmp_path / "deep" / "out" / "manifest.json").exists()
    # What is left, if anything, is for --resume; no reader takes it for a run.
    with pytest.raises(ResultsError):
        rct_ray.open_run(tmp_path / "deep" / "out")
