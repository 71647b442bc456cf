"""Rebuilt weights checked against the tables: what agrees, what must not."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import rct_ray
from rct_ray import RebuildError


def altered(out, path, change):
    """The same file with its arrays changed, by the library."""
    arrays = load_file(out)
    with safe_open(out, "np") as file:
        metadata = file.metadata()
    change(arrays)
    save_file(arrays, path, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def made(zoo, tmp_path_factory):
    directory = tmp_path_factory.mktemp("verify")
    rct_ray.run(zoo, directory / "run", tower="gaussian > pca(0.9)")
    (out,) = rct_ray.reconstruct(directory / "run", directory / "out.safetensors", 2, dtype="float32")
    return directory / "run", out


def test_what_was_rebuilt_agrees(cli, zoo, made):
    run, out = made
    status, printed, error = cli("verify", run, zoo, out)
    assert (status, error) == (0, "")
    assert "level 2: all 9 tensors agree" in printed
    checked = rct_ray.verify(run, zoo, out)
    assert checked.level == 2
    for tensor in checked.tensors:
        if tensor.r2 is not None:
            assert tensor.dtype == "F32"
            # float32 rounds so little that what it is allowed beside the tolerance does not show.
            assert 1e-5 <= tensor.allowed < 1.1e-5
            assert abs(tensor.r2 - tensor.expected) < 1e-7
    assert {tensor.name for tensor in checked.tensors if tensor.r2 is None} == {"bias", "counts"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("text", ["dct(3)", "svd(40)"])
def test_rounding_to_narrow_types_is_accounted_for(zoo, zoo_weights, tmp_path, dtype, text):
    run = tmp_path / "run"
    include = ("a.*", "h.*", "one.*") if text == "svd(40)" else ()
    rct_ray.run(zoo, run, tower=text, include=include)
    (out,) = rct_ray.reconstruct(run, tmp_path / "out.safetensors", 1, dtype=dtype)
    checked = rct_ray.verify(run, zoo, out)
    assert checked.agrees
    rounding = float(ml_dtypes.finfo(load_file(out)["a.weight"].dtype).eps) / 2
    for tensor in checked.tensors:
        if tensor.r2 is not None:
            kept = tensor.expected
            # |V|^2 = kept |W|^2 for least squares about zero, up to the rounding itself.
            bound = 2 * rounding * np.sqrt((1 - kept) * kept) + rounding**2
            assert tensor.allowed == pytest.approx(1e-5 + bound, rel=0.1, abs=1e-6)


def test_bfloat16_as_in_the_original_agrees(cli, tiny, tmp_path):
    assert cli("run", tiny, "--out", tmp_path / "run", "--tower", "svd(8) > pca(0.95)")[0] == 0
    out = tmp_path / "out.safetensors"
    status, printed, error = cli("reconstruct", tmp_path / "run", "--level", 2, "-o", out)
    assert (status, printed, error) == (0, "", f"level 2 written to {out}\n")
    assert cli("verify", tmp_path / "run", tiny, out)[0] == 0


def add(name, amount):
    def change(arrays):
        arrays[name] = arrays[name] + np.asarray(amount, arrays[name].dtype)

    return change


def one_bit(arrays):
    arrays["counts"] = arrays["counts"].copy()
    arrays["counts"][1, 5] ^= 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (add("a.weight", 0.3), "a.weight"),
        (add("layer.experts.up", 0.1), "layer.experts.up"),
        (one_bit, "counts"),
    ],
)
def test_a_tensor_that_was_altered_differs(cli, zoo, made, tmp_path, change, name):
    run, out = made
    path = altered(out, tmp_path / "altered.safetensors", change)
    status, printed, error = cli("verify", run, zoo, path)
    assert (status, error) == (1, "")
    assert "1 of 9 tensors differ" in printed
    (line,) = (line for line in printed.splitlines() if "DIFFERS" in line)
    assert line.split()[0] == name
    status, printed, _ = cli("verify", run, zoo, path, "--json")
    assert status == 1
    said = json.loads(printed)
    assert [tensor["name"] for tensor in said["tensors"] if not tensor["agrees"]] == [name]


def test_nan_differs(zoo, made, tmp_path):
    run, out = made
    path = altered(out, tmp_path / "altered.safetensors", add("d.weight", np.nan))
    checked = rct_ray.verify(run, zoo, path)
    assert [tensor.name for tensor in checked.tensors if not tensor.agrees] == ["d.weight"]


def test_the_original_itself_is_no_rebuilt_checkpoint(zoo, made):
    with pytest.raises(RebuildError, match="does not say which level"):
        rct_ray.verify(made[0], zoo, zoo)


def test_another_run_is_refused(zoo, made, tmp_path):
    rct_ray.run(zoo, tmp_path / "run", tower="gaussian > pca(0.9)")
    with pytest.raises(RebuildError, match="from another run"):
        rct_ray.verify(tmp_path / "run", zoo, made[1])


def test_missing_and_strange_tensors_are_refused(zoo, made, tmp_path):
    run, out = made
    lacking = altered(out, tmp_path / "lacking.safetensors", lambda arrays: arrays.pop("bias"))
    with pytest.raises(RebuildError, match="lacks the tensor 'bias'"):
        rct_ray.verify(run, zoo, lacking)
    more = altered(out, tmp_path / "more.safetensors", lambda arrays: arrays.update(x=np.ones(3)))
    with pytest.raises(RebuildError, match="has a tensor 'x'"):
        rct_ray.verify(run, zoo, more)
    flat = altered(
        out, tmp_path / "flat.safetensors", lambda arrays: arrays.update(bias=np.ones((2, 24), np.float32))
    )
    with pytest.raises(RebuildError, match=r"'bias' has shape \[2, 24\]"):
        rct_ray.verify(run, zoo, flat)
