"""PyTorch files for the tests, valid and (by hand) invalid, written without torch and without pickling anything."""

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .build import NAMES

STORAGES = {
    "F64": "Double", "F32": "Float", "F16": "Half", "BF16": "BFloat16", "I64": "Long", "I32": "Int", "U8": "Byte",
    "BOOL": "Bool", "C64": "ComplexFloat",
}  # fmt: skip
FP8 = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
PREFIX = "archive/"


@dataclass(frozen=True)
class Global:
    name: str


@dataclass(frozen=True)
class Reduce:
    function: Global
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Persistent:
    identity: Any


@dataclass(frozen=True)
class Raw:
    code: bytes


def text_of(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + len(raw).to_bytes(4, "little") + raw


def code(value: Any) -> bytes:
    """Instructions of pickle's protocol 2 that push a value."""
    match value:
        case Raw():
            return value.code
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case str():
            return text_of(value)
        case tuple():
            return b"(" + b"".join(map(code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case dict():
            return b"}(" + b"".join(code(key) + code(item) for key, item in value.items()) + b"u"
        case Global():
            module, _, name = value.name.rpartition(".")
            return f"c{module}\n{name}\n".encode()
        case Reduce():
            return code(value.function) + code(value.arguments) + b"R"
        case Persistent():
            return code(value.identity) + b"Q"
    raise TypeError(value)


def pickled(tree: Any) -> bytes:
    return b"\x80\x02" + code(tree) + b"."


def storage(key: Any, count: Any, kind: str = "torch.FloatStorage") -> Persistent:
    return Persistent(("storage", Global(kind), key, "cpu", count))


def view(
    key: Any = "0", offset: Any = 0, shape: Any = (2, 3), strides: Any = (3, 1), count: Any = 6, **kinds: str
) -> Reduce:
    """A tensor as torch describes it, right or wrong; by default the six numbers of storage 0."""
    hooks = Reduce(Global("collections.OrderedDict"), ())
    held = storage(key, count, **kinds)
    arguments = (held, offset, shape, strides, False, hooks)
    return Reduce(Global("torch._utils._rebuild_tensor_v2"), arguments)


def described(array: np.ndarray, key: str) -> Reduce:
    """A whole array, C-contiguous, as torch describes it."""
    strides = tuple(step // array.itemsize for step in array.strides)
    name = NAMES[array.dtype]
    if name in STORAGES:
        return view(key, 0, array.shape, strides, array.size, kind=f"torch.{STORAGES[name]}Storage")
    held = storage(key, array.nbytes, "torch.storage.UntypedStorage")
    dtype = Global(f"torch.{FP8[name]}")
    hooks = Reduce(Global("collections.OrderedDict"), ())
    return Reduce(
        Global("torch._utils._rebuild_tensor_v3"), (held, 0, array.shape, strides, False, hooks, dtype)
    )


@dataclass
class Archive:
    """The records of a PyTorch file."""

    pickle: bytes
    storages: dict[str, bytes] = field(default_factory=lambda: {"0": np.arange(6, dtype="<f4").tobytes()})
    extra: dict[str, bytes] = field(default_factory=lambda: {f"{PREFIX}byteorder": b"little"})

    def raw(self, method: int = zipfile.ZIP_STORED) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr(f"{PREFIX}data.pkl", self.pickle)
            for name, content in self.extra.items():
                archive.writestr(name, content)
            for key, content in self.storages.items():
                archive.writestr(f"{PREFIX}data/{key}", content)
        return stream.getvalue()

    def save(self, path: Path) -> Path:
        path.write_bytes(self.raw())
        return path


def save_tree(path: Path, tree: Any, **storages: bytes) -> Path:
    """A file of a tree whose tensors lie in these storages; of storage 0 if none are given."""
    return (Archive(pickled(tree), storages) if storages else Archive(pickled(tree))).save(path)


def save_torch(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A valid file of C-contiguous arrays, a storage each."""
    tree = {name: described(array, str(key)) for key, (name, array) in enumerate(arrays.items())}
    held = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    return Archive(pickled(tree), held).save(path)
