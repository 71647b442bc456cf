"""Valid PyTorch files, damaged at random: an error of ours, or what is there; never anything else."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rct_ray.checkpoint import CheckpointError, open_checkpoint

from .build import matrix, weights
from .torch_build import Archive, pickled, save_tree, view

TREE = {
    "model": {"a": view(), "t": view("1", 2, (4, 5), (1, 4), 24), "tied": view()},
    "optimizer": [view()],
    "n": None,
}
STORAGES = {"0": np.arange(6, dtype="<f4").tobytes(), "1": weights(24).tobytes()}
VALID = [
    Archive(pickled(TREE), STORAGES).raw(),
    Path(__file__).with_name("torch-2.13.pt").read_bytes(),
]
QUICK = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def everything(path):
    """Values of every tensor that can be read; None if the file is refused."""
    try:
        entries = open_checkpoint(path).tensors
        return {entry.name: matrix(entry, 3) for entry in entries if entry.skip_reason is None}
    except CheckpointError as fault:
        said = str(fault)
    assert said.isprintable()
    assert str(path) in said
    return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    found = []
    for place, raw in enumerate(VALID):
        path = tmp_path_factory.mktemp("whole") / f"{place}.pt"
        path.write_bytes(raw)
        found.append(everything(path))
    assert all(found)
    return found


@QUICK
@given(data=st.data(), which=st.sampled_from(range(len(VALID))))
def test_one_byte_is_another(tmp_path, whole, data, which):
    raw = bytearray(VALID[which])
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "w.pt"
    path.write_bytes(raw)
    found = everything(path)
    if found is not None:
        # The pickle has a checksum and names are there twice, so that only values can have changed: one each.
        assert found.keys() == whole[which].keys()
        for name, values in found.items():
            expected = whole[which][name]
            assert values.shape == expected.shape
            same = (values == expected) | (np.isnan(values) & np.isnan(expected))
            assert np.count_nonzero(~same) <= 1


@QUICK
@given(data=st.data(), which=st.sampled_from(range(len(VALID))))
def test_bytes_are_cut_doubled_or_noise(tmp_path, data, which):
    raw = bytearray(VALID[which])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        stop = data.draw(st.integers(start, min(start + 200, len(raw))))
        raw[start:stop] = data.draw(st.one_of(st.binary(max_size=64), st.just(bytes(raw[start:stop]) * 2)))
    path = tmp_path / "w.pt"
    path.write_bytes(raw)
    everything(path)


@QUICK
@given(data=st.data(), which=st.sampled_from(range(len(VALID))))
def test_a_file_that_ends_early_is_refused(tmp_path, data, which):
    raw = VALID[which]
    path = tmp_path / "w.pt"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    assert everything(path) is None


@QUICK
@given(data=st.data())
def test_the_pickle_is_damaged_behind_a_right_checksum(tmp_path, data):
    raw = bytearray(pickled(TREE))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "w.pt"
    Archive(bytes(raw), STORAGES).save(path)
    everything(path)


@QUICK
@given(raw=st.binary(max_size=300))
def test_the_pickle_is_noise(tmp_path, raw):
    path = tmp_path / "w.pt"
    Archive(b"\x80\x04" + raw + b".", STORAGES).save(path)
    everything(path)


SIZES = st.one_of(st.integers(-2, 30), st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64, -(2**63)]))


@QUICK
@given(
    offset=SIZES,
    axes=st.lists(st.tuples(SIZES, SIZES), max_size=4),
    count=st.one_of(st.just(24), SIZES),
)
def test_any_view_lies_within_its_storage_or_is_refused(tmp_path, offset, axes, count):
    shape, strides = (tuple(axis[side] for axis in axes) for side in (0, 1))
    base = np.arange(24, dtype="<f4")
    tree = {"w": view("0", offset, shape, strides, count)}
    found = everything(save_tree(tmp_path / "w.pt", tree, **{"0": base.tobytes()}))
    for values in (found or {}).values():
        steps = tuple(4 * step for step in strides)
        expected = np.ndarray(shape, np.float32, base.data, 4 * offset, steps)
        np.testing.assert_array_equal(values, expected.reshape(len(expected), -1))
