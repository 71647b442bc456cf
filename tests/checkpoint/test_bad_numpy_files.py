"""NumPy files that are not as their headers say, each with its fault named."""

import io
import struct
import zipfile

import numpy as np
import pytest

from rct_ray.checkpoint import CheckpointError, open_checkpoint

from .build import save_member, weights


def npy(header: str | None = None, data: bytes = bytes(24), version: tuple[int, int] = (1, 0)) -> bytes:
    text = (header or "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}").encode("latin1") + b"\n"
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


def shaped(shape: str, descr: str = "'<f4'") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


NPY = {
    "not npy": (b"hello, world, this is text", "magic string is not correct"),
    "six bytes": (b"\x93NUMPY", "npy header: EOF: reading magic string"),
    "header cut": (npy()[:20], "npy header: EOF: reading array header"),
    "version 3": (npy(version=(3, 0)), "format version 3.0 is not read"),
    "version 9": (npy(version=(9, 9)), "format version 9.9 is not read"),
    "header too long": (npy("{" + " " * 12_000 + "}"), "npy header: Header info length"),
    "header of 4 GB": (b"\x93NUMPY\x02\x00" + b"\xff" * 4 + bytes(50_000), "EOF: reading array header"),
    "header is code": (npy("__import__('os').getpid()"), "npy header: malformed node"),
    "header is no mapping": (npy("[1, 2]"), "Header is not a dictionary"),
    "header lacks shape": (
        npy("{'descr': '<f4', 'fortran_order': False}"),
        "Header does not contain the correct keys",
    ),
    "header nested deeply": (npy("(" * 4000 + ")" * 4000), "npy header"),
    "unknown dtype": (shaped("(2, 3)", "'<q9'"), "npy header"),
    "shape is a list": (shaped("[2, 3]"), "shape is not valid"),
    "negative shape": (shaped("(-2, -3)"), "shape is not a tuple of sizes"),
    "shape of bools": (shaped("(True, 6)"), "shape is not a tuple of sizes"),
    "shape wraps around": (shaped(f"({2**32}, {2**32})"), "promises 73786976294838206464 bytes of values"),
    "data cut": (npy(data=bytes(23)), "is truncated: header promises 24 bytes of values, there are 23"),
    "data left over": (npy(data=bytes(25)), "1 bytes after the values"),
    "two arrays": (npy() + npy(), "after the values of array 'bad'; save one array a file"),
}


def check(path, fault):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert fault in message
    assert message.isprintable()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", NPY)
@pytest.mark.parametrize("kind", ["npy", "stored", "deflated"])
def test_bad_npy(tmp_path, case, kind):
    content, fault = NPY[case]
    if kind == "npy":
        path = tmp_path / "bad.npy"
        path.write_bytes(content)
    else:
        path = tmp_path / "bad.npz"
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("bad.npy", content)
    check(path, fault)


def archive_of(*names: str, method: int = zipfile.ZIP_STORED) -> bytearray:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name in names:
            save_member(archive, name, weights(4, 4))
    return bytearray(stream.getvalue())


def patched(raw: bytearray, signature: bytes, offset: int, value: bytes) -> bytes:
    start = raw.index(signature) + offset
    raw[start : start + len(value)] = value
    return bytes(raw)


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "fault"),
    [
        pytest.param(
            lambda: b"PK\x03\x04 not a zip", "zip directory: File is not a zip file", id="not a zip"
        ),
        pytest.param(lambda: bytes(archive_of("w.npy")[:-30]), "zip directory", id="end cut"),
        pytest.param(lambda: bytes(archive_of("w.npy")[40:]), "member 'w.npy'", id="start cut"),
        pytest.param(lambda: bytes(archive_of()), "no .npy member", id="no member"),
        pytest.param(lambda: bytes(archive_of("w.txt", "x.pkl")), "no .npy member", id="no npy member"),
        pytest.param(lambda: bytes(archive_of("w.npy", "w.npy")), "duplicate member 'w.npy'", id="duplicate"),
        pytest.param(
            lambda: bytes(archive_of("w.npy", method=zipfile.ZIP_BZIP2)),
            "compression method 12 is not read",
            id="bzip2",
        ),
        pytest.param(
            lambda: bytes(archive_of("w.npy", method=zipfile.ZIP_LZMA)),
            "compression method 14 is not read",
            id="lzma",
        ),
        pytest.param(lambda: patched(archive_of("w.npy"), CENTRAL, 8, b"\1"), "encrypted", id="encrypted"),
        pytest.param(
            lambda: patched(archive_of("w.npy"), LOCAL, 6, b"\1"), "encrypted", id="encrypted locally"
        ),
        pytest.param(
            lambda: patched(archive_of("w.npy"), LOCAL, 8, b"\x08"), "disagree", id="methods disagree"
        ),
        pytest.param(lambda: patched(archive_of("w.npy"), LOCAL, 0, b"XX"), "disagree", id="no local header"),
        pytest.param(
            lambda: patched(archive_of("w.npy"), LOCAL, 28, b"\xff\xff"),
            "lies outside the file",
            id="local extra too long",
        ),
        pytest.param(
            lambda: patched(archive_of("w.npy"), CENTRAL, 42, b"\xf0\xff\xff\x7f"),
            "lies outside",
            id="far header offset",
        ),
        pytest.param(
            lambda: patched(archive_of("w.npy"), CENTRAL, 20, b"\xff\xff\xff\x7f" * 2),
            "lies outside",
            id="member too long",
        ),
        pytest.param(
            lambda: patched(archive_of("w.npy"), CENTRAL, 24, b"\xff\xff"),
            "stored in 192 bytes but",
            id="sizes",
        ),
        pytest.param(
            lambda: patched(archive_of("w.npy", method=zipfile.ZIP_DEFLATED), CENTRAL, 24, b"\xff\xff"),
            "deflated member ends after 192 of 65535 bytes",
            id="deflated size",
        ),
        pytest.param(
            lambda: bytes(archive_of("\x1b[2J.npy", "\x1b[2J.npy")),
            r"duplicate member '\x1b[2J.npy'",
            id="escape",
        ),
    ],
)
def test_bad_npz(tmp_path, make, fault):
    path = tmp_path / "bad.npz"
    path.write_bytes(make())
    check(path, fault)


def test_a_deflated_header_that_is_noise(tmp_path):
    raw = archive_of("w.npy", method=zipfile.ZIP_DEFLATED)
    start = raw.index(b"w.npy") + 5
    raw[start : start + 40] = b"\xff" * 40
    path = tmp_path / "bad.npz"
    path.write_bytes(raw)
    check(path, "deflated member is damaged")


def test_zip64_sizes_open(tmp_path):
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("w.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, weights(4, 4))
    assert open_checkpoint(path).tensors[0].shape == (4, 4)
