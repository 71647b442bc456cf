"""Which matrix a tensor is, and why some are none."""

import numpy as np
import pytest

from rct_ray.checkpoint import CheckpointError, RowReader, open_checkpoint

from .build import DTYPES, matrix, only, save, weights


@pytest.mark.parametrize(
    ("name", "shape", "rows", "width"),
    [
        ("w", (6, 4), 6, 4),
        ("conv.weight", (6, 4, 3), 6, 12),
        ("conv.weight", (6, 4, 3, 3), 6, 36),
        ("conv.weight", (2, 2, 2, 2, 2), 2, 16),
        ("model.layers.0.mlp.experts.gate_up_proj", (3, 5, 4), 15, 4),
        ("model.Experts_0.w", (3, 5, 4), 15, 4),
        ("layers.MoE.w1", (3, 5, 4), 15, 4),
        ("layers.block_sparse_moe.w1", (3, 5, 4), 3, 20),
        ("layers.nonexpert.w1", (3, 5, 4), 3, 20),
        ("layers.experts.w1", (3, 5), 3, 5),
        ("layers.experts.w1", (3, 5, 2, 2), 3, 20),
    ],
)
@pytest.mark.parametrize("order", ["C", "F", "safetensors"])
def test_folding(tmp_path, name, shape, rows, width, order):
    array = weights(*shape)
    if order == "safetensors":
        path = save(tmp_path / "w.safetensors", {name: array})
    else:
        path = tmp_path / "w.npz"
        np.savez(path, **{name: np.asarray(array, order=order)})
    entry = only(open_checkpoint(path))
    assert (entry.name, entry.shape, entry.rows, entry.width) == (name, shape, rows, width)
    assert entry.skip_reason is None
    for block in (None, 1, 4):
        np.testing.assert_array_equal(matrix(entry, block), array.reshape(rows, width))
    picked = np.array([0, 1, rows - 1, rows - 1])
    with RowReader(entry) as reader:
        got = reader.read_rows(picked, np.empty((9, width), np.float32))
    np.testing.assert_array_equal(got, array.reshape(rows, width)[picked])


SKIPPED = {
    "scalar": (np.float32(1.0), "scalar"),
    "vector": (weights(4), "1-D"),
    "integer vector": (np.arange(4), "1-D"),
    "integers": (np.zeros((2, 2), np.int64), "integer dtype I64"),
    "bytes": (np.zeros((2, 2), np.uint8), "integer dtype U8"),
    "flags": (np.zeros((2, 2), np.bool_), "boolean dtype BOOL"),
    "complex": (np.zeros((2, 2), np.complex64), "complex dtype C64"),
    "no rows": (np.zeros((0, 4), np.float32), "no elements"),
    "no columns": (np.zeros((4, 0, 2), np.float32), "no elements"),
}
SKIPPED_BY_NPZ = {
    "wide complex": (np.zeros((2, 2), np.complex128), "complex dtype <c16"),
    "swapped integers": (np.zeros((2, 2), ">i4"), "integer dtype I32"),
    "long double": (np.zeros((2, 2), np.longdouble), f"unsupported dtype {np.dtype(np.longdouble).str}"),
    "text": (np.array([["a", "b"]]), "unsupported dtype <U1"),
    "dates": (np.zeros((2, 2), "M8[s]"), "unsupported dtype <M8[s]"),
    "records": (np.zeros((2, 2), "f4,f4"), "raw void dtype |V8"),
    "bfloat16 as numpy saves it": (np.zeros((2, 2), DTYPES["BF16"]), "raw void dtype |V2"),
    "objects": (np.array([[{}, []]], object), "object array (pickle), never loaded"),
    "one object": (np.array({}, object), "object array (pickle), never loaded"),
    "records of objects": (np.zeros((2, 2), "f4,O"), "object array (pickle), never loaded"),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_skipped_in_safetensors(tmp_path, case):
    array, reason = SKIPPED[case]
    path = save(tmp_path / "w.safetensors", {"keep": weights(2, 2), "skip": np.asarray(array)})
    keep, skip = open_checkpoint(path).tensors
    assert (keep.skip_reason, skip.skip_reason) == (None, reason)
    with pytest.raises(CheckpointError, match="'skip' has no rows to read"):
        RowReader(skip)


@pytest.mark.filterwarnings("ignore:Custom dtypes are saved as python objects")
@pytest.mark.parametrize("case", SKIPPED | SKIPPED_BY_NPZ)
@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_skipped_in_npz(tmp_path, case, save_npz):
    array, reason = (SKIPPED | SKIPPED_BY_NPZ)[case]
    save_npz(tmp_path / "w.npz", keep=weights(2, 2), skip=array)
    keep, skip = open_checkpoint(tmp_path / "w.npz").tensors
    assert (keep.skip_reason, skip.skip_reason) == (None, reason)
    with pytest.raises(CheckpointError, match="'skip' has no rows to read"):
        RowReader(skip)


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "w.npy", np.array([[Bomb(), 1]], object))
    entry = only(open_checkpoint(tmp_path / "w.npy"))
    assert entry.skip_reason == "object array (pickle), never loaded"
    with pytest.raises(CheckpointError, match="never loaded"):
        RowReader(entry)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    ("weight", "scale"),
    [
        ("a.weight", "a.weight_scale_inv"),
        ("a.weight", "a.weight_scale"),
        ("a.weight", "a.scale"),
        ("experts.gate_up_proj", "experts.gate_up_proj_scale"),
        ("experts.gate_up_proj", "experts.gate_up_proj_scale_inv"),
    ],
)
@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("two_files", [False, True])
def test_fp8_with_its_scale_elsewhere_is_not_fitted(tmp_path, weight, scale, dtype, two_files):
    values, scales = {weight: weights(4, 4, dtype=DTYPES[dtype])}, {scale: weights(1)}
    if two_files:
        save(tmp_path / "1.safetensors", scales)
        save(tmp_path / "2.safetensors", values)
    else:
        save(tmp_path / "1.safetensors", values | scales)
    found = {entry.name: entry for entry in open_checkpoint(tmp_path).tensors}
    assert found[weight].skip_reason == f"FP8 with separate scales in {scale}, which are not applied"
    with pytest.raises(CheckpointError, match="not applied"):
        RowReader(found[weight])


def test_fp8_alone_and_scaled_bf16_are_read(tmp_path):
    arrays = {
        "a.weight": weights(4, 4, dtype=DTYPES["F8_E4M3"]),
        "b.weight_scale": weights(1),
        "c.weight": weights(4, 4, dtype=DTYPES["BF16"]),
        "c.weight_scale": weights(1),
    }
    found = open_checkpoint(save(tmp_path / "w.safetensors", arrays)).tensors
    assert [entry.skip_reason for entry in found] == [None, "1-D", None, "1-D"]


@pytest.mark.parametrize(
    ("name", "metadata", "step"),
    [
        ("w", {"step": "12"}, 12),
        ("step3", {"step": "12"}, 12),
        ("step3", {"step": "twelve"}, 3),
        ("step3", {"step": "1_2"}, 3),
        ("w", {"step": "9" * 5000}, None),
        ("w", {"step": "9" * 19}, None),
        ("step01400", {}, 1400),
        ("step-123", {}, 123),
        ("model_Step_5", {}, 5),
        ("global_step77", {}, 77),
        ("checkpoint_123", {}, 123),
        ("checkpoint-9", {}, 9),
        ("iter_123", {}, 123),
        ("checkpoint_2_step500", {}, 500),
        ("model-00001-of-00002", {}, None),
        ("w" * 3 + "step" + "9" * 40, {}, None),
    ],
)
def test_step(tmp_path, name, metadata, step):
    checkpoint = open_checkpoint(save(tmp_path / f"{name}.safetensors", {"w": weights(2, 2)}, **metadata))
    assert (checkpoint.name, checkpoint.step) == (name, step)
