"""Every header that is not as the format demands is refused with its file and its fault."""

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rct_ray.checkpoint import CheckpointError, open_checkpoint

from .build import header_of, raw_file, refused, weights


def tensor(**changes):
    return {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes}


def two(first, second):
    return {
        "a": {"dtype": "U8", "shape": [first[1] - first[0]], "data_offsets": first},
        "b": {"dtype": "U8", "shape": [second[1] - second[0]], "data_offsets": second},
    }


GOOD = json.dumps(tensor()).encode()

# name: (header as an object or as bytes, fault); behind it 24 bytes of data.
HEADERS = {
    "not JSON": (b"{nonsense", "header is not JSON: Expecting property name"),
    "JSON cut": (GOOD[:-1], "header is not JSON"),
    "JSON with more behind it": (GOOD + b"}", "header is not JSON: Extra data"),
    "array": (b"[]", "header does not begin with '{'"),
    "space first": (b" " + GOOD, "header does not begin with '{'"),
    "no header": (b"", "header does not begin with '{'"),
    "not UTF-8": (GOOD.replace(b'"w"', b'"\xff"'), "header is not UTF-8 at byte 2"),
    "UTF-16": (b"{" + GOOD.decode().encode("utf-16"), "header is not UTF-8"),
    "control character in a name": (GOOD.replace(b'"w"', b'"\n"'), "Invalid control character"),
    "half a surrogate": (GOOD.replace(b'"w"', b'"\\ud800"'), "half a surrogate pair"),
    "nested deeply": (b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "objects nested deeply": (b'{"w":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "dtype nested almost too deeply": (
        b'{"w":{"dtype":' + b"[" * 900 + b"]" * 900 + b',"shape":[2,3],"data_offsets":[0,24]}}',
        "",
    ),
    "number of 5000 digits": (GOOD.replace(b"24", b"9" * 5000), "header is not JSON: Exceeds the limit"),
    "same tensor twice": (GOOD[:-1] + b"," + GOOD[1:], "duplicate key 'w'"),
    "same field twice": (GOOD.replace(b'"dtype"', b'"dtype": "F64", "dtype"'), "duplicate key 'dtype'"),
    "metadata is a list": ({"__metadata__": []} | tensor(), "__metadata__ is not a map of strings"),
    "metadata is null": ({"__metadata__": None} | tensor(), "__metadata__ is not a map of strings"),
    "metadata of numbers": ({"__metadata__": {"step": 3}} | tensor(), "__metadata__ is not a map of strings"),
    "tensor is null": ({"w": None}, "'w': its header has not exactly dtype, shape and data_offsets"),
    "tensor is a list": ({"w": [1]}, "'w': its header has not exactly"),
    "no dtype": ({"w": {"shape": [2, 3], "data_offsets": [0, 24]}}, "'w': its header has not exactly"),
    "no shape": ({"w": {"dtype": "F32", "data_offsets": [0, 24]}}, "'w': its header has not exactly"),
    "no offsets": ({"w": {"dtype": "F32", "shape": [2, 3]}}, "'w': its header has not exactly"),
    "one field more": (tensor(stride=1), "'w': its header has not exactly"),
    "unknown dtype": (tensor(dtype="F128"), "'w': unknown dtype 'F128'"),
    "dtype in lower case": (tensor(dtype="f32"), "'w': unknown dtype 'f32'"),
    "dtype is a number": (tensor(dtype=32), "'w': dtype is not a string"),
    "dtype is a list": (tensor(dtype=["F32"]), "'w': dtype is not a string"),
    "shape is a number": (tensor(shape=6), "'w': shape is not a list of sizes"),
    "shape is null": (tensor(shape=None), "'w': shape is not a list of sizes"),
    "shape has a float": (tensor(shape=[2, 3.0]), "'w': shape is not a list of sizes"),
    "shape has a bool": (tensor(shape=[6, True]), "'w': shape is not a list of sizes"),
    "shape has a string": (tensor(shape=["2", 3]), "'w': shape is not a list of sizes"),
    "shape has NaN": (tensor(shape=[float("nan"), 3]), "'w': shape is not a list of sizes"),
    "negative shape": (tensor(shape=[-2, -3]), "'w': shape is not a list of sizes"),
    "three offsets": (tensor(data_offsets=[0, 12, 24]), "'w': data_offsets are not two sizes"),
    "offsets are an object": (tensor(data_offsets={}), "'w': data_offsets are not two sizes"),
    "offset is a float": (tensor(data_offsets=[0, 24.0]), "'w': data_offsets are not two sizes"),
    "offset is a bool": (tensor(data_offsets=[False, 24]), "'w': data_offsets are not two sizes"),
    "negative offset": (tensor(data_offsets=[-24, 0]), "'w': data_offsets are not two sizes"),
    "offsets the wrong way": (
        tensor(data_offsets=[24, 0]),
        "'w': data_offsets [24, 0] end before they start",
    ),
    "offsets too short": (
        tensor(data_offsets=[0, 20]),
        "'w': shape and dtype need 24 bytes, data_offsets span 20",
    ),
    "offsets too long": (tensor(shape=[2, 2]), "'w': shape and dtype need 16 bytes, data_offsets span 24"),
    "half a byte": (
        tensor(dtype="F4", shape=[3, 3], data_offsets=[0, 4]),
        "'w': shape and dtype need 36 bits, which are no whole bytes, data_offsets span 4",
    ),
    "half a byte, rounded up": (tensor(dtype="F6_E2M3", shape=[31], data_offsets=[0, 24]), "no whole bytes"),
    "shape wraps around 64 bits": (tensor(shape=[2**33, 2**33], data_offsets=[0, 0]), "64 bits can count"),
    "shape is nothing times too much": (
        tensor(shape=[2**40, 2**40, 0], data_offsets=[0, 0]),
        "64 bits can count",
    ),
    "a million huge axes": (tensor(shape=[2**62] * 10**6), "64 bits can count"),
    "offset of 2**80": (tensor(data_offsets=[0, 2**80]), "data_offsets span 1208925819614629174706176"),
    "hole at the start": (two([4, 12], [12, 24]), "'a': data_offsets [4, 12] leaves a hole before it"),
    "hole in the middle": (two([0, 10], [12, 24]), "'b': data_offsets [12, 24] leaves a hole before it"),
    "overlap": (
        two([0, 14], [12, 24]),
        "'b': data_offsets [12, 24] overlaps the tensor before it (which ends at 14)",
    ),
    "same bytes twice": (two([0, 24], [0, 24]), "'b': data_offsets [0, 24] overlaps"),
    "empty tensor within another": (two([0, 24], [8, 8]), "'b': data_offsets [8, 8] overlaps"),
    "bytes left over": (two([0, 10], [10, 20]), "4 bytes after the last tensor"),
    "no tensors but bytes": ({}, "24 bytes after the last tensor"),
    "too few bytes": (
        tensor(shape=[2, 4], data_offsets=[0, 32]),
        "truncated: header promises 105 bytes, the file has 97",
    ),
    "control characters in a name": (
        {"\x1b[2J\n\u202e": {"dtype": "no"}},
        r"'\x1b[2J\n\u202e': its header has not exactly",
    ),
    "name of a million letters": ({"x" * 10**6: 1}, f"'{'x' * 160}...': its header has not exactly"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_bad_header(tmp_path, case):
    header, fault = HEADERS[case]
    path = raw_file(tmp_path / "bad.safetensors", header, bytes(24))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert fault in message
    assert message.isprintable()
    assert len(message) < 600


FILES = {
    "empty": (b"", "empty file"),
    "seven bytes": (bytes(7), "truncated: a safetensors file has at least 8 bytes, the file has 7"),
    "only a length": (struct.pack("<Q", 2), "truncated: header promises 10 bytes, the file has 8"),
    "header cut": (
        struct.pack("<Q", len(GOOD)) + GOOD[:9],
        "truncated: header promises 73 bytes, the file has 17",
    ),
    "length too large": (
        struct.pack("<Q", 10**8 + 1) + GOOD,
        "header length 100000001 is over 100000000 bytes",
    ),
    "length of all ones": (b"\xff" * 8 + GOOD, "header length 18446744073709551615 is over"),
    "some other file": (b"PK\x03\x04" + bytes(100), "truncated: header promises"),
    "data cut": (struct.pack("<Q", len(GOOD)) + GOOD + bytes(23), "truncated: header promises"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_file(tmp_path, case):
    content, fault = FILES[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert fault in str(caught.value)


ARRAYS = {
    "first.weight": weights(3, 4),
    "experts.w": weights(2, 3, 2, dtype=np.float16),
    "bias": weights(4, dtype=np.float64),
}
VALID = json.dumps({"__metadata__": {"step": "3"}} | header_of(ARRAYS)).encode()
DATA = b"".join(array.tobytes() for array in ARRAYS.values())
PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"0",
    b"-1",
    b"1e9",
    b"true",
    b"null",
    b"\\u0000",
    b"\xff",
    b"F16",
]


def opens_or_is_refused(path):
    message = refused(path)
    assert message is None or (str(path) in message and message.isprintable())


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(VALID)), st.integers(0, 6), st.sampled_from(PIECES) | st.binary(max_size=4)
        ),
        min_size=1,
        max_size=4,
    )
)
@example(edits=[(0, 0, b"")])
def test_a_mutated_header_opens_or_is_refused(tmp_path, edits):
    header = VALID
    for place, removed, inserted in edits:
        header = header[:place] + inserted + header[place + removed :]
    opens_or_is_refused(raw_file(tmp_path / "bad.safetensors", header, DATA))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=64), length=st.integers(0, 2**64 - 1) | st.integers(0, 64))
def test_random_bytes_open_or_are_refused(tmp_path, raw, length):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", length) + raw)
    opens_or_is_refused(path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**66) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    field=st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__"]),
    value=JSON_VALUES | st.lists(st.integers(0, 2**66), max_size=4),
)
def test_any_json_in_a_field_opens_or_is_refused(tmp_path, field, value):
    header = (
        tensor(**{field: value}) if field in ("dtype", "shape", "data_offsets") else tensor() | {field: value}
    )
    opens_or_is_refused(raw_file(tmp_path / "bad.safetensors", header, bytes(24)))
