"""Reading rows: the caller's buffer, sampled rows, and files that change underneath."""

import os
import pickle
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from rct_ray.checkpoint import CheckpointError, RowReader, open_checkpoint

from .build import matrix, only, save, weights


@pytest.fixture(params=["F32", "F64", "BF16", "F8", "fortran", "deflated", "deflated fortran", "swapped"])
def stored(request, tmp_path):
    """One tensor of 300 x 7 in every way a reader can meet it, and its values."""
    kinds = {"F64": np.float64, "BF16": ml_dtypes.bfloat16, "F8": ml_dtypes.float8_e4m3fn, "swapped": ">f4"}
    array = weights(300, 7, dtype=kinds.get(request.param, np.float32))
    if request.param in ("F32", "F64", "BF16", "F8"):
        path = save(tmp_path / "w.safetensors", {"before": weights(3), "w": array, "after": weights(3)})
    elif request.param in ("fortran", "swapped"):
        path = tmp_path / "w.npy"
        np.save(path, np.asfortranarray(array) if request.param == "fortran" else array)
    else:
        path = tmp_path / "w.npz"
        np.savez_compressed(path, w=np.asfortranarray(array) if "fortran" in request.param else array)
    entry = next(entry for entry in open_checkpoint(path).tensors if entry.name == "w")
    return entry, array.astype(entry.value_dtype)


def test_the_callers_buffer_is_filled_and_returned(stored):
    entry, array = stored
    out = np.full((10, 7), -1, entry.value_dtype)
    with RowReader(entry) as reader:
        got = reader.read(5, 9, out)
        assert got.base is out
        np.testing.assert_array_equal(got, array[5:9])
        assert (out[4:] == -1).all()
        assert reader.read(3, 3, out).shape == (0, 7)
        assert reader.read(300, 300, out).shape == (0, 7)
        np.testing.assert_array_equal(reader.read(299, 300, out), array[299:])
        np.testing.assert_array_equal(reader.read(0, 10, out), array[:10])


@pytest.mark.parametrize("count", [0, 1, 2, 40, 299, 300])
def test_sampled_rows(stored, count):
    entry, array = stored
    rows = np.sort(np.random.default_rng(7).choice(300, count, replace=False))
    out = np.empty((300, 7), entry.value_dtype)
    with RowReader(entry) as reader:
        np.testing.assert_array_equal(reader.read_rows(rows, out), array[rows])


def test_sampled_rows_may_repeat(stored):
    entry, array = stored
    rows = np.array([0, 0, 1, 2, 2, 2, 299, 299])
    with RowReader(entry) as reader:
        got = reader.read_rows(rows, np.empty((8, 7), entry.value_dtype))
    np.testing.assert_array_equal(got, array[rows])


@pytest.mark.parametrize(
    ("rows", "fault"),
    [([-1, 0], "ascending"), ([3, 2], "ascending"), ([299, 300], "ascending")],
)
def test_wrong_sample(stored, rows, fault):
    entry, _ = stored
    with RowReader(entry) as reader, pytest.raises(ValueError, match=fault):
        reader.read_rows(np.array(rows), np.empty((8, 7), entry.value_dtype))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (5, 4), (299, 301), (301, 302)])
def test_wrong_range(stored, start, stop):
    entry, _ = stored
    with RowReader(entry) as reader, pytest.raises(ValueError, match="not within the 300 rows"):
        reader.read(start, stop, np.empty((8, 7), entry.value_dtype))


def test_wrong_buffer(stored):
    entry, _ = stored
    kind = entry.value_dtype
    frozen = np.empty((8, 7), kind)
    frozen.flags.writeable = False
    other = np.float32 if kind == np.float64 else np.float64
    wrong = [np.empty((3, 7), kind), np.empty((8, 6), kind), np.empty(56, kind), np.empty((8, 7), other)]
    wrong += [np.empty((7, 8), kind).T, np.empty((8, 14), kind)[:, ::2], frozen]
    with RowReader(entry) as reader:
        for out in wrong:
            with pytest.raises(ValueError, match=r"^out "):
                reader.read(0, 4, out)


def test_short_reads_are_continued(stored, monkeypatch):
    entry, array = stored
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:5]], offset))
    np.testing.assert_array_equal(matrix(entry, 64), array)


def test_a_read_error_is_a_checkpoint_error(tmp_path, monkeypatch):
    entry = only(open_checkpoint(save(tmp_path / "w.safetensors", {"w": weights(3, 4)})))

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: input/output error"):
        matrix(entry)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def touched(path, ns=1):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + ns))


def truncated(path):
    os.truncate(path, path.stat().st_size - 100)


def replaced(path):
    path.with_suffix(".new").write_bytes(bytes(path.stat().st_size))
    path.with_suffix(".new").replace(path)
    touched(path, 10**9)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (touched, "changed since it was opened"),
        (truncated, "changed since it was opened"),
        (replaced, "changed since it was opened"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
    ],
    ids=["touched", "truncated", "replaced", "removed", "a directory now"],
)
def test_a_file_that_changed_before_reading(stored, tmp_path, change, fault):
    entry, _ = stored
    path = next(tmp_path.glob("w.*"))
    before = open_files()
    change(path)
    with pytest.raises(CheckpointError, match=fault) as caught:
        RowReader(entry)
    assert str(path) in str(caught.value)
    assert open_files() == before


def test_a_file_truncated_while_it_is_read(tmp_path):
    for name, order in (("w.safetensors", "C"), ("w.npy", "F"), ("stored.npz", "F")):
        path = tmp_path / name
        array = np.asarray(weights(5000, 16), order=order)
        if name.endswith("npz"):
            np.savez(path, w=array)
        elif order == "F":
            np.save(path, array)
        else:
            save(path, {"w": array})
        reader = RowReader(only(open_checkpoint(path)))
        os.truncate(path, 10_000)
        out = np.empty((5000, 16), np.float32)
        with pytest.raises(CheckpointError, match="truncated while being read"):
            reader.read(0, 5000, out)
        reader.close()


def test_a_file_written_to_while_it_is_read(stored, tmp_path):
    entry, _ = stored
    reader = RowReader(entry)
    with pytest.raises(CheckpointError, match="changed while it was read"), reader:
        touched(next(tmp_path.glob("w.*")))


def test_an_error_inside_the_block_is_not_hidden(stored, tmp_path):
    entry, _ = stored

    def read_and_fail():
        with RowReader(entry):
            touched(next(tmp_path.glob("w.*")))
            raise KeyError

    with pytest.raises(KeyError):
        read_and_fail()


def test_readers_are_closed(stored):
    entry, _ = stored
    before = open_files()
    for _ in range(3):
        with RowReader(entry) as reader:
            pass
        RowReader(entry)
    assert open_files() == before
    with pytest.raises(ValueError, match="closed"):
        reader.read(0, 1, np.empty((1, 7), entry.value_dtype))
    reader.close()


def test_one_reader_a_thread(stored):
    entry, array = stored
    found = {}

    def work(number):
        found[number] = matrix(entry, 3 + number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        np.testing.assert_array_equal(found[number], array)


def test_errors_are_pickled_whole():
    fault = CheckpointError("a\nb\\n\x1b \u202e")
    assert str(fault) == "a\\nb\\n\\x1b \\u202e"
    assert str(pickle.loads(pickle.dumps(fault))) == str(fault)
