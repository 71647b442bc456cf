"""Values come back as the safetensors library and ml_dtypes have them."""

import json
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rct_ray.checkpoint import RowReader, open_checkpoint
from rct_ray.checkpoint.dtypes import BITS

from .build import DTYPES, matrix, only, raw_file, save, weights


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_what_the_library_wrote_comes_back(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    array = weights(37, 19, dtype=dtype)
    safetensors.numpy.save_file({"w": array}, path, metadata={"step": "7"})
    checkpoint = open_checkpoint(path)
    entry = only(checkpoint)
    assert (checkpoint.name, checkpoint.step, checkpoint.metadata) == ("w", 7, {"step": "7"})
    assert (entry.rows, entry.width, entry.nbytes, entry.skip_reason) == (37, 19, array.nbytes, None)
    same(matrix(entry, 5), array.astype(entry.value_dtype))


@pytest.mark.skipif(not hasattr(safetensors, "TensorSpec"), reason="an older safetensors")
@pytest.mark.parametrize(
    ("word", "name"), [("bfloat16", "BF16"), ("float8_e4m3fn", "F8_E4M3"), ("float8_e5m2", "F8_E5M2")]
)
def test_what_the_library_wrote_of_narrow_dtypes_comes_back(tmp_path, word, name):
    path = tmp_path / "w.safetensors"
    array = weights(37, 19, dtype=DTYPES[name])
    spec = safetensors.TensorSpec(
        dtype=word, shape=[37, 19], data_ptr=array.ctypes.data, data_len=array.nbytes
    )
    path.write_bytes(safetensors.serialize({"w": spec}))
    entry = only(open_checkpoint(path))
    assert entry.dtype == name
    same(matrix(entry, 5), array.astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_code_of_every_dtype_widens_as_ml_dtypes_does(tmp_path, dtype):
    kind = np.dtype(DTYPES[dtype])
    if kind.itemsize > 2:
        array = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 1e-320, 1.5, np.pi]] * 4).astype(kind)
    else:
        codes = np.arange(2 ** (8 * kind.itemsize), dtype=f"u{kind.itemsize}")
        array = codes.view(kind).reshape(-1, 16)
    entry = only(open_checkpoint(save(tmp_path / "w.safetensors", {"w": array})))
    assert entry.dtype == dtype
    assert entry.value_dtype == (np.float64 if dtype == "F64" else np.float32)
    np.testing.assert_array_equal(matrix(entry, 3), array.astype(entry.value_dtype))


def test_blocks_larger_than_the_widening_buffer(tmp_path):
    array = weights(70, 9000, dtype=ml_dtypes.bfloat16)
    entry = only(open_checkpoint(save(tmp_path / "w.safetensors", {"w": array})))
    same(matrix(entry), array.astype(np.float32))
    same(matrix(entry, 33), array.astype(np.float32))


def test_a_row_larger_than_the_widening_buffer(tmp_path):
    array = weights(3, 300_000, dtype=np.float16)
    same(
        matrix(only(open_checkpoint(save(tmp_path / "w.safetensors", {"w": array})))),
        array.astype(np.float32),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=6),
    dtypes=st.lists(st.sampled_from([*DTYPES, "I64", "BOOL"]), min_size=6, max_size=6),
    block=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shapes_and_dtypes_round_trip(tmp_path, shapes, dtypes, block, seed):
    kinds = [DTYPES.get(dtype, {"I64": np.int64, "BOOL": np.bool_}.get(dtype)) for dtype in dtypes]
    arrays = {
        f"t{i}": weights(*shape, dtype=kind, seed=seed) if shape else np.zeros((), kind)
        for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=False))
    }
    checkpoint = open_checkpoint(save(tmp_path / "w.safetensors", arrays))
    assert [entry.name for entry in checkpoint.tensors] == list(arrays)
    for entry, array in zip(checkpoint.tensors, arrays.values(), strict=True):
        assert entry.shape == array.shape
        assert entry.nbytes == array.nbytes
        if entry.skip_reason is None:
            same(matrix(entry, block), array.reshape(len(array), -1).astype(entry.value_dtype))
        else:
            assert array.ndim < 2 or array.size == 0 or array.dtype.kind in "ib"


def test_header_order_padding_and_data_out_of_order(tmp_path):
    first, second = weights(2, 3), weights(4, 5, seed=1)
    header = {
        "z": {"dtype": "F32", "shape": [2, 3], "data_offsets": [80, 104]},
        "none": {"dtype": "F32", "shape": [0, 3], "data_offsets": [80, 80]},
        "a": {"dtype": "F32", "shape": [4, 5], "data_offsets": [0, 80]},
    }
    text = json.dumps(header).encode() + b"  \n\t "
    path = raw_file(tmp_path / "w.safetensors", text, second.tobytes() + first.tobytes())
    z, none, a = open_checkpoint(path).tensors
    assert (z.name, none.name, a.name) == ("z", "none", "a")
    assert none.skip_reason == "no elements"
    same(matrix(z), first)
    same(matrix(a), second)


@pytest.mark.parametrize("dtype", BITS)
def test_every_dtype_of_the_format_opens(tmp_path, dtype):
    size = 16 * 4 * BITS[dtype] // 8
    header = {"w": {"dtype": dtype, "shape": [16, 4], "data_offsets": [0, size]}}
    entry = only(open_checkpoint(raw_file(tmp_path / "w.safetensors", header, bytes(size))))
    assert (entry.dtype, entry.nbytes, entry.rows, entry.width) == (dtype, size, 16, 4)
    assert (entry.skip_reason is None) == (dtype in DTYPES)


def test_the_library_opens_what_we_open(tmp_path):
    """Our own writer for tests is held to the real format."""
    arrays = {"a": weights(3, 4), "b": weights(2, 2, dtype=np.float64)}
    read = safetensors.numpy.load_file(save(tmp_path / "w.safetensors", arrays))
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)


def test_entries_and_errors_travel_between_processes(tmp_path):
    path = save(tmp_path / "w.safetensors", {"w": weights(3, 4)}, step="3")
    checkpoint = open_checkpoint(path)
    copy = pickle.loads(pickle.dumps(checkpoint))
    assert copy == checkpoint
    same(matrix(copy.tensors[0]), weights(3, 4))


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, rct_ray.checkpoint; "
        "print([m for m in ('ml_dtypes','safetensors','torch','ray','pyarrow','cupy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_hundred_thousand_tensors_take_no_quadratic_step(tmp_path):
    count = 100_000
    header = {
        f"layers.{i}.weight": {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [4 * i, 4 * i + 4]}
        for i in range(count)
    }
    checkpoint = open_checkpoint(raw_file(tmp_path / "w.safetensors", header, bytes(4 * count)))
    assert len(checkpoint.tensors) == count
    with RowReader(checkpoint.tensors[-1]) as reader:
        assert not reader.read(0, 2, np.ones((2, 2), np.float32)).any()
