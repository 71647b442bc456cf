"""PyTorch files that are as they should be: every value, whatever its type, its strides and its place."""

import os
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import rct_ray
from rct_ray.checkpoint import open_checkpoint

from .build import DTYPES, matrix, only, read_all, save, weights, write_index
from .torch_build import (
    Archive,
    Global,
    Raw,
    Reduce,
    code,
    described,
    pickled,
    save_torch,
    save_tree,
    storage,
    view,
)

# Written by torch 2.13.0 itself: make_torch_fixture.py.
MADE_BY_TORCH = Path(__file__).with_name("torch-2.13.pt")


def counting(*shape, start=0):
    return (np.arange(start, start + np.prod(shape)) / 8).reshape(shape)


def test_what_torch_wrote():
    found = read_all(MADE_BY_TORCH)
    base = counting(10, 6)
    expected = {
        "model.emb.weight": counting(6, 4),
        "model.head.weight": counting(6, 4),
        "views.base": base,
        "views.turned": base.T,
        "views.rows": base[2:7],
        "views.columns": base[:, 1:4],
        "views.apart": base[1::3, ::2],
        "views.stacked": counting(4, 3, 5).transpose(1, 2, 0).reshape(3, 20),
        "parameter": counting(2, 3),
        "list.0": counting(2, 2),
    }
    halves = counting(3, 4, start=-6)
    for kind in ("float64", "float16"):
        expected[f"types.{kind}"] = halves.astype(kind)
    for kind in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"):
        expected[f"types.{kind}"] = halves.astype(getattr(ml_dtypes, kind)).astype(np.float32)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_what_torch_wrote_and_is_not_measured():
    checkpoint = open_checkpoint(MADE_BY_TORCH)
    skipped = {entry.name: entry.skip_reason for entry in checkpoint.tensors if entry.skip_reason}
    assert skipped == {
        "model.head.bias": "1-D",
        **{
            f"optimizer.state.{place}.{name}": "optimizer state"
            for place in (0, 1)
            for name in ("step", "exp_avg", "exp_avg_sq")
        },
        "views.spread": "view that repeats the values of a storage of 5",
        "types.int64": "integer dtype I64",
        "types.uint16": "integer dtype U16",
        "types.bool": "boolean dtype BOOL",
        "types.complex64": "complex dtype C64",
    }
    assert {entry.name: entry.tied for entry in checkpoint.tensors if entry.tied} == {
        "model.head.weight": "model.emb.weight"
    }
    assert checkpoint.step == 1400


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [1, 3, 100])
def test_every_type_in_blocks(tmp_path, dtype, block):
    array = weights(17, 9, dtype=DTYPES[dtype])
    path = save_torch(tmp_path / "w.pt", {"before": weights(3), "w": array, "after": weights(3)})
    entry = open_checkpoint(path).tensors[1]
    assert entry.dtype == dtype
    np.testing.assert_array_equal(matrix(entry, block), array.astype(entry.value_dtype))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT"])
def test_suffixes(tmp_path, suffix):
    checkpoint = open_checkpoint(save_torch(tmp_path / f"step7{suffix}", {"w": weights(4, 4)}))
    assert (checkpoint.name, checkpoint.step) == ("step7", 7)


@pytest.mark.parametrize("block", [1, 2, 100])
@pytest.mark.parametrize(
    "cut",
    [
        lambda base: base.T,
        lambda base: base[3:9],
        lambda base: base[:, 2:5],
        lambda base: base[::3, ::2],
        lambda base: base.reshape(5, 4, 6).transpose(2, 0, 1),
        lambda base: base[7:8, :],
        lambda base: base[:, 3:4],
    ],
)
def test_views(tmp_path, cut, block):
    base = weights(20, 6)
    seen = cut(base)
    offset = (seen.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // 4
    strides = tuple(step // 4 for step in seen.strides)
    tree = {"w": view("0", offset, seen.shape, strides, base.size)}
    entry = only(open_checkpoint(save_tree(tmp_path / "w.pt", tree, **{"0": base.tobytes()})))
    np.testing.assert_array_equal(matrix(entry, block), seen.reshape(len(seen), -1))


def test_a_stack_of_experts_that_is_a_view(tmp_path):
    base = weights(5, 3, 4)
    tree = {"moe.w": view("0", 0, (4, 5, 3), (1, 12, 4), 60)}
    entry = only(open_checkpoint(save_tree(tmp_path / "w.pt", tree, **{"0": base.tobytes()})))
    np.testing.assert_array_equal(matrix(entry, 3), base.transpose(2, 0, 1).reshape(20, 3))


def test_names_are_keys_between_dots(tmp_path):
    tree = {
        "state_dict": {"module.w": view(), "h": {0: [view(), (view(),)]}},
        "epoch": 3,
        "global_step": 1400,
    }
    checkpoint = open_checkpoint(save_tree(tmp_path / "w.pt", tree))
    names = [entry.name for entry in checkpoint.tensors]
    assert names == ["state_dict.module.w", "state_dict.h.0.0", "state_dict.h.0.1.0"]
    assert checkpoint.step == 1400


def test_a_tensor_alone_has_the_files_name(tmp_path):
    assert only(open_checkpoint(save_tree(tmp_path / "w.pt", view()))).name == "w"


def test_what_stands_around_tensors(tmp_path):
    hooks = Reduce(Global("collections.OrderedDict"), ())
    parameter = Reduce(Global("torch._utils._rebuild_parameter"), (view(), True, hooks))
    rebuild, tensor = Global("torch._utils._rebuild_tensor_v2"), view()
    subclass = Reduce(
        Global("torch._tensor._rebuild_from_type_v2"),
        (rebuild, Global("torch.nn.parameter.Parameter"), tensor.arguments, {}),
    )
    size = Reduce(Global("torch.Size"), ((2, 3),))
    ordered = Raw(
        code(hooks) + b"(" + code("w") + code(view(shape=size)) + b"u" + code({"_metadata": {}}) + b"b"
    )
    namespace = Raw(code(Global("argparse.Namespace")) + b")\x81" + code({"lr": 1, "kept": view()}) + b"b")
    tree = {
        "p": parameter,
        "s": subclass,
        "o": ordered,
        "args": namespace,
        "set": Raw(b"\x8f(K\x01K\x02\x90"),
    }
    found = read_all(save_tree(tmp_path / "w.pt", tree))
    assert list(found) == ["p", "s", "o.w", "args.state.kept"]
    for values in found.values():
        np.testing.assert_array_equal(values, np.arange(6).reshape(2, 3))


def test_optimizers_state_is_known_by_its_key_and_by_its_form(tmp_path):
    tree = {
        "optimizer_state_dict": {"m": view()},
        "Optimizer": [view()],
        "ema": view(),
        "o": {"state": {0: view()}, "param_groups": []},
    }
    found = {e.name: e.skip_reason for e in open_checkpoint(save_tree(tmp_path / "w.pt", tree)).tensors}
    assert found == {
        "optimizer_state_dict.m": "optimizer state",
        "Optimizer.0": "optimizer state",
        "ema": None,
        "o.state.0": "optimizer state",
    }


def test_tensors_without_values_of_their_own(tmp_path):
    meta = Reduce(
        Global("torch._utils._rebuild_meta_tensor_no_storage"),
        (Global("torch.float32"), (3, 4), (4, 1), False),
    )
    layout = Reduce(Global("torch.serialization._get_layout"), ("torch.sparse_coo",))
    sparse = Reduce(Global("torch._utils._rebuild_sparse_tensor"), (layout, (view(), view(), (9, 9), True)))
    quantized = Reduce(
        Global("torch._utils._rebuild_qtensor"),
        (
            storage("0", 24, "torch.QInt8Storage"),
            0,
            (4, 6),
            (6, 1),
            (Global("torch.per_tensor_affine"), 1, 0),
        ),
    )
    negated = Reduce(view().function, (*view().arguments, {"neg": True}))
    tree = {"m": meta, "s": sparse, "q": quantized, "n": negated, "raw": storage("0", 6)}
    found = {
        e.name: (e.shape, e.skip_reason) for e in open_checkpoint(save_tree(tmp_path / "w.pt", tree)).tensors
    }
    assert found == {
        "m": ((3, 4), "meta tensor, no values"),
        "s": ((9, 9), "sparse tensor"),
        "q": ((4, 6), "quantized tensor, whose scales are not applied"),
        "n": ((2, 3), "view that is negated when it is read"),
        "raw": ((6,), "1-D"),
    }


def test_tied_are_the_same_place_and_shape(tmp_path):
    tree = {
        "optimizer": view(),
        "a": view(),
        "b": view(),
        "other shape": view(shape=(3, 2), strides=(2, 1)),
        "part": view(shape=(1, 3)),
        "other key": view("1"),
        "c": view(),
    }
    six = np.arange(6, dtype="<f4").tobytes()
    entries = open_checkpoint(save_tree(tmp_path / "w.pt", tree, **{"0": six, "1": six})).tensors
    assert {entry.name: entry.tied for entry in entries if entry.tied} == {"b": "a", "c": "a"}


def tied_reasons(path, **settings):
    return {tensor["name"]: tensor["reason"] for tensor in rct_ray.inspect(path, **settings)["tensors"]}


def test_tied_tensors_are_counted_once(tmp_path):
    path = save_tree(tmp_path / "w.pt", {"a": view(), "b": view(), "c": view()})
    assert tied_reasons(path) == {"a": None, "b": "tied to a", "c": "tied to a"}
    assert tied_reasons(path, count_tied=True) == {"a": None, "b": None, "c": None}
    assert tied_reasons(path, exclude=("a",)) == {"a": "--exclude 'a'", "b": None, "c": "tied to b"}


def test_tied_tensors_on_the_command_line(cli, tmp_path):
    path = save_tree(tmp_path / "w.pt", {"a": view(), "b": view()})
    assert cli("run", path, "--out", tmp_path / "once", "--tower", "dct(1)")[0] == 0
    assert cli("run", path, "--out", tmp_path / "twice", "--tower", "dct(1)", "--count-tied")[0] == 0
    rows = [rct_ray.open_run(tmp_path / name).tensors.to_pylist() for name in ("once", "twice")]
    assert [[row["skip_reason"] for row in table] for table in rows] == [[None, "tied to a"], [None, None]]


@pytest.mark.parametrize("dtype", ["F32", "F64", "BF16", "F8_E4M3"])
def test_tables_equal_those_of_safetensors_to_the_bit(tmp_path, dtype):
    shapes = {"a.weight": (96, 32), "b.weight": (64, 48), "conv": (16, 4, 3, 3), "bias": (32,), "c": (40, 32)}
    arrays = {n: weights(*s, dtype=DTYPES[dtype], seed=i) for i, (n, s) in enumerate(shapes.items())}
    paths = [save(tmp_path / "w.safetensors", arrays), save_torch(tmp_path / "w.pt", arrays)]
    runs = [
        rct_ray.run(path, tmp_path / f"run-{place}", tower="gaussian(K=4) > pca(0.95)", shard_bytes=1000)
        for place, path in enumerate(paths)
    ]
    assert runs[0].levels.num_rows
    assert runs[0].levels.equals(runs[1].levels)
    assert runs[0].tensors.drop(["file"]).equals(runs[1].tensors.drop(["file"]))
    assert runs[0].decoders.equals(runs[1].decoders)


def test_tables_of_a_transposed_view_equal_those_of_its_copy(tmp_path):
    base = weights(32, 96)
    tree = {"w": view("0", 0, (96, 32), (1, 96), base.size)}
    paths = [save_tree(tmp_path / "w.pt", tree, **{"0": base.tobytes()}), tmp_path / "w.safetensors"]
    save(paths[1], {"w": np.ascontiguousarray(base.T)})
    first, second = (rct_ray.run(path, path.with_suffix(path.suffix + ".rct")) for path in paths)
    assert first.levels.equals(second.levels)


def test_an_index_of_bin_files(tmp_path):
    shards = {
        "pytorch_model-1.bin": {"a": weights(4, 4)},
        "pytorch_model-2.bin": {"b": weights(4, 4, seed=1)},
    }
    for name, arrays in shards.items():
        save_torch(tmp_path / name, arrays)
    (tmp_path / "training_args.bin").write_bytes(b"anything")
    (tmp_path / "optimizer.pt").write_bytes(b"anything")
    weight_map = {name: shard for shard, arrays in shards.items() for name in arrays}
    index = write_index(tmp_path, weight_map, "pytorch_model.bin.index.json")
    for path in (tmp_path, index):
        found = read_all(path)
        np.testing.assert_array_equal(found["a"], shards["pytorch_model-1.bin"]["a"])
        np.testing.assert_array_equal(found["b"], shards["pytorch_model-2.bin"]["b"])
        assert open_checkpoint(path).name == tmp_path.name


def test_a_directory_of_hugging_face_without_an_index(tmp_path):
    save_torch(tmp_path / "pytorch_model.bin", {"a": weights(4, 4)})
    for other in ("training_args.bin", "optimizer.pt", "rng_state.pth"):
        (tmp_path / other).write_bytes(b"anything")
    assert only(open_checkpoint(tmp_path)).name == "a"


def test_safetensors_decide_where_both_are(tmp_path):
    save(tmp_path / "model.safetensors", {"safe": weights(4, 4)})
    save_torch(tmp_path / "pytorch_model.bin", {"pickled": weights(4, 4)})
    write_index(tmp_path, {"pickled": "pytorch_model.bin"}, "pytorch_model.bin.index.json")
    assert only(open_checkpoint(tmp_path)).name == "safe"


def test_zip64_and_members_without_checksums(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        contents = {"data.pkl": pickled({"w": view()}), "data/0": np.arange(6, dtype="<f4").tobytes()}
        for name, content in contents.items():
            with archive.open(f"a/{name}", "w", force_zip64=True) as stream:
                stream.write(content)
    np.testing.assert_array_equal(read_all(path)["w"], np.arange(6).reshape(2, 3))


def test_blocks_are_read_in_place(tmp_path, monkeypatch):
    path = save_torch(tmp_path / "w.pt", {"w": weights(1000, 50)})
    entry = only(open_checkpoint(path))
    read, real = [], os.preadv

    def counted(fd, buffers, offset):
        read.append(sum(memoryview(buffer).nbytes for buffer in buffers))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    matrix(entry, 10)
    assert read == [10 * 50 * 4] * 100


def test_the_same_file_has_the_same_digest(tmp_path):
    arrays = {"w": weights(4, 4)}
    first, second = (open_checkpoint(save_torch(tmp_path / f"{n}.pt", arrays)).files[0] for n in "ab")
    other = Archive(pickled({"v": described(arrays["w"], "0")}), {"0": arrays["w"].tobytes()})
    third = open_checkpoint(other.save(tmp_path / "c.pt")).files[0]
    assert first.header_sha256 == second.header_sha256 != third.header_sha256
