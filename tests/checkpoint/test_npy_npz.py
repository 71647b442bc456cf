"""NumPy's own files: both orders, both byte orders, stored and deflated."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rct_ray.checkpoint import CheckpointError, RowReader, open_checkpoint

from .build import matrix, only, refused, save_member, weights

FLOATS = ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["npy", "stored", "deflated"])
@pytest.mark.parametrize("block", [None, 1, 7])
def test_round_trip(tmp_path, dtype, order, kind, block):
    array = np.asarray(weights(23, 11).astype(dtype), order=order)
    path = tmp_path / ("w.npy" if kind == "npy" else "w.npz")
    with path.open("wb") as stream:
        if kind == "npy":
            np.save(stream, array)
        else:
            (np.savez if kind == "stored" else np.savez_compressed)(stream, w=array)
    checkpoint = open_checkpoint(path)
    entry = only(checkpoint)
    assert (checkpoint.name, entry.name, entry.shape, entry.nbytes) == ("w", "w", array.shape, array.nbytes)
    assert entry.dtype == f"F{8 * array.itemsize}"
    assert entry.seekable == (kind != "deflated")
    got = matrix(entry, block)
    assert got.dtype == (np.float64 if array.itemsize == 8 else np.float32)
    np.testing.assert_array_equal(got, array.astype(got.dtype))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(0, 5), max_size=5),
    dtype=st.sampled_from(FLOATS),
    order=st.sampled_from("CF"),
    saver=st.sampled_from([np.savez, np.savez_compressed]),
    name=st.sampled_from(["w", "experts"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_array_round_trips(tmp_path, shape, dtype, order, saver, name, seed):
    array = np.asarray(weights(*shape, seed=seed) if shape else 0.0, dtype=dtype, order=order)
    saver(tmp_path / "w.npz", **{name: array, "last": array})
    for entry in open_checkpoint(tmp_path / "w.npz").tensors:
        assert (entry.shape, entry.nbytes) == (array.shape, array.nbytes)
        if entry.skip_reason is None:
            np.testing.assert_array_equal(matrix(entry, 2), array.reshape(entry.rows, entry.width))


def test_a_deflated_member_is_read_in_any_order(tmp_path):
    array = weights(5000, 64)
    np.savez_compressed(tmp_path / "w.npz", w=array)
    entry = only(open_checkpoint(tmp_path / "w.npz"))
    out = np.empty((1000, 64), np.float32)
    with RowReader(entry) as reader:
        for start in (0, 4000, 2000, 2500, 0, 4000, 4000):
            np.testing.assert_array_equal(reader.read(start, start + 1000, out), array[start : start + 1000])


def test_zip_order_and_strange_member_names(tmp_path):
    names = ["z", "../../etc/passwd", "/abs", "a/b", "ünï"]
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("readme.txt", "not an array")
        for seed, name in enumerate(names):
            save_member(archive, f"{name}.npy", weights(3, 2, seed=seed))
    found = open_checkpoint(tmp_path / "w.npz").tensors
    assert [entry.name for entry in found] == names
    for seed, entry in enumerate(found):
        np.testing.assert_array_equal(matrix(entry), weights(3, 2, seed=seed))
    assert [path.name for path in tmp_path.iterdir()] == ["w.npz"]


def test_format_version_2_and_a_zip_behind_other_bytes(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, weights(3, 4), version=(2, 0))
    (tmp_path / "w.npy").write_bytes(stream.getvalue())
    np.testing.assert_array_equal(matrix(only(open_checkpoint(tmp_path / "w.npy"))), weights(3, 4))

    packed = io.BytesIO()
    np.savez(packed, w=weights(3, 4))
    (tmp_path / "w.npz").write_bytes(b"#!/bin/sh\n" + packed.getvalue())
    np.testing.assert_array_equal(matrix(only(open_checkpoint(tmp_path / "w.npz"))), weights(3, 4))


def test_a_member_whose_sizes_come_after_it(tmp_path):
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", method) as archive:
            save_member(archive, "w.npy", weights(30, 4))
        (tmp_path / "w.npz").write_bytes(pipe.getvalue())
        np.testing.assert_array_equal(matrix(only(open_checkpoint(tmp_path / "w.npz"))), weights(30, 4))


def damage(path, change):
    """Change the compressed bytes of the only member, and its stated sizes and CRC where asked to."""
    with zipfile.ZipFile(path) as archive:
        (member,) = archive.infolist()
        content = archive.read(member)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", change(content))


def patch_directory(path, field, value):
    """Write another number at a field of the (only) central directory entry."""
    raw = bytearray(path.read_bytes())
    start = raw.rindex(b"PK\x01\x02")
    offset, size = {"method": (10, 2), "crc": (16, 4), "packed": (20, 4), "plain": (24, 4)}[field]
    raw[start + offset : start + offset + size] = value.to_bytes(size, "little")
    path.write_bytes(raw)


@pytest.fixture
def deflated(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=np.zeros((4000, 64), np.float32))
    return path


def test_a_deflate_bomb_is_left_where_its_promise_ends(deflated):
    promised = 4000 * 64 * 4 + 128
    damage(deflated, lambda content: content + bytes(50_000_000))
    patch_directory(deflated, "plain", promised)
    entry = only(open_checkpoint(deflated))
    with pytest.raises(CheckpointError, match=r"w\.npz.*goes on after the 1024128 bytes"):
        matrix(entry, 500)


def test_a_deflated_member_that_ends_early(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=weights(4000, 64))
    damage(path, lambda content: content[:500_000])
    patch_directory(path, "plain", 4000 * 64 * 4 + 128)
    with pytest.raises(CheckpointError, match=r"w\.npz.*ends after 500000 of 1024128"):
        matrix(only(open_checkpoint(path)), 500)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_deflated_member_with_a_wrong_checksum(tmp_path, order):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=np.asarray(weights(400, 64), order=order))
    patch_directory(path, "crc", 1)
    with pytest.raises(CheckpointError, match=r"w\.npz.*fails its checksum"):
        matrix(only(open_checkpoint(path)), 100)


def test_damaged_deflate(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=weights(4000, 64))
    entry = only(open_checkpoint(path))
    raw = bytearray(path.read_bytes())
    raw[300_000:300_400] = b"\xff" * 400
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"w\.npz"):
        matrix(only(open_checkpoint(path)), 100)
    with pytest.raises(CheckpointError, match="changed since it was opened"):
        RowReader(entry)


def test_a_size_that_deflate_cannot_reach(deflated):
    patch_directory(deflated, "plain", 2**31)
    with pytest.raises(CheckpointError, match=r"w\.npz.*deflated bytes cannot hold 2147483648"):
        open_checkpoint(deflated)


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


NPY = npy_bytes(weights(30, 40))
STORED = io.BytesIO()
np.savez(STORED, a=weights(8, 8), b=np.asfortranarray(weights(8, 8)))
DEFLATED = io.BytesIO()
np.savez_compressed(DEFLATED, a=weights(8, 8), b=np.asfortranarray(weights(8, 8)))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["npy", "stored", "deflated"]),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 2**16),
)
def test_any_damage_is_a_checkpoint_error_or_other_values(tmp_path, kind, changes, cut):
    original = {"npy": NPY, "stored": STORED.getvalue(), "deflated": DEFLATED.getvalue()}[kind]
    raw = bytearray(original)
    for place, value in changes:
        # Headers and directories are where it hurts: the first bytes and the last.
        place %= 200
        raw[place if value % 2 else -1 - place] = value
    path = tmp_path / ("w.npy" if kind == "npy" else "w.npz")
    path.write_bytes(raw[: cut % len(raw)] if cut is not None else raw)
    message = refused(path)
    assert message is None or (str(path) in message and message.isprintable())
