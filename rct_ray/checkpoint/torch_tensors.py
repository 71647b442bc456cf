"""Which tensors the pickle of a PyTorch file describes: their names, and the storage and strides of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from rct_ray.checkpoint.errors import CheckpointError, quoted
from rct_ray.checkpoint.torch_names import KINDS, META, REBUILDS, SPARSE, TYPED, WRAPPERS, is_needed
from rct_ray.checkpoint.torch_pickle import Call, Name, Persistent

_DEEPEST = 64
_MOST_AXES = 64
_MOST_STEPS = 8_000_000
_LONGEST_NAME = 10_000
_MOST_TENSORS = 500_000
_MOST_TEXT = 64 << 20
_MOST_BYTES = 2**63
# What a tensor may claim without bytes for it: the tables count columns in 32 bits.
_MOST_ABSENT = 2**31


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """One tensor that a pickle describes; sizes, strides and offsets are in elements.

    Attributes
    ----------
    name : str
        Keys and places from the outermost container on, between dots.
    dtype : str
        safetensors' name of the element type, or another where it has none.
    itemsize : int
        Bytes of an element.
    shape, strides : tuple of int
        Within the storage, whatever its length; checked against `count`.
    storage : str
        The storage's key, ``''`` when there is none.
    offset, count : int
        First element, and elements of the storage.
    reason : str or None
        Why it can't be measured, if not for its shape or type.
    """

    name: str
    dtype: str
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    storage: str = ""
    offset: int = 0
    count: int = 0
    reason: str | None = None

    @property
    def contiguous(self) -> bool:
        """Whether its values lie one after the other, in C order."""
        expected = 1
        for axis, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if axis != 1 and stride != expected and 0 not in self.shape:
                return False
            expected *= axis
        return True


def tensors_in(tree: Any, where: str, alone: str) -> list[TorchTensor]:
    """List every tensor in what `read_pickle` returned.

    Parameters
    ----------
    tree : object
        Containers within containers.
    where : str
        The file, for the message.
    alone : str
        Name of a tensor that is in no container.

    Returns
    -------
    list of TorchTensor
        In the order of the containers, names unique, each within its storage.
    """
    walk = _Walk(where)
    return list(walk.visit(tree, (), alone, False))


class _Walk:
    def __init__(self, where: str) -> None:
        self._where = where
        self._steps = self._text = 0
        self._seen: set[str] = set()

    def visit(self, node: Any, path: tuple[str, ...], alone: str, optimizer: bool) -> Iterator[TorchTensor]:
        if _describes_tensor(node):
            yield self._tensor(node, ".".join(path) or alone, optimizer)
            return
        if len(path) >= _DEEPEST:
            raise _bad(self._where, f"containers nested more than {_DEEPEST} deep")
        optimizer = optimizer or (type(node) is dict and {"state", "param_groups"} <= node.keys())
        for key, child in _children(node):
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise _bad(
                    self._where, f"more than {_MOST_STEPS} values, counted as often as they are listed"
                )
            if isinstance(child, dict | list | tuple | Call | Persistent):
                text = key.decode("latin1") if type(key) is bytes else str(key)
                yield from self.visit(child, (*path, text), alone, optimizer or _is_optimizer(text))

    def _tensor(self, node: Any, name: str, optimizer: bool) -> TorchTensor:
        self._text += len(name)
        if len(name) > _LONGEST_NAME or self._text > _MOST_TEXT:
            raise _bad(self._where, f"tensor {quoted(name)}: names that are too long")
        if not _encodable(name):
            raise _bad(self._where, f"tensor {quoted(name)}: half a surrogate pair in its name")
        if name in self._seen:
            raise _bad(self._where, f"tensor {quoted(name)} is there twice")
        self._seen.add(name)
        if len(self._seen) > _MOST_TENSORS:
            raise _bad(self._where, f"more than {_MOST_TENSORS} tensors, counted as often as they are listed")
        tensor = _described(node, f"{self._where}: tensor {quoted(name)}")
        return replace(tensor, name=name, reason="optimizer state" if optimizer else tensor.reason)


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if type(node) is dict:
        yield from node.items()
    elif type(node) in (list, tuple):
        yield from enumerate(node)
    elif type(node) is Call:
        yield from enumerate(node.arguments)
        yield "state", node.state


def _is_optimizer(key: str) -> bool:
    return key.lower().startswith("optimizer") or key.lower() in ("optim", "optims", "optim_state")


def _encodable(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _describes_tensor(node: Any) -> bool:
    return type(node) is Persistent or (type(node) is Call and is_needed(node.function))


def _bad(where: str, what: str) -> CheckpointError:
    return CheckpointError(f"{where}: {what}; do not trust this file, or save it anew")


def _described(node: Any, where: str) -> TorchTensor:
    """Describe one tensor, whatever functions stand around its rebuilding."""

    def bad(what: str) -> NoReturn:
        raise _bad(where, what)

    for _ in range(_DEEPEST):
        if type(node) is Persistent:
            key, dtype, itemsize, count = _storage(node, where)
            return TorchTensor("", dtype, itemsize, (count,), (1,), key, 0, count)
        if type(node) is not Call or not is_needed(node.function):
            bad("its description is of no tensor")
        name, given = node.function, node.arguments
        if name in WRAPPERS and given:
            node = given[0]
        elif name == TYPED and len(given) >= 3 and type(given[0]) is Name and type(given[2]) is tuple:
            node = Call(given[0].text, given[2])
        elif name in REBUILDS and len(given) >= 4:
            return _view(name, given, where)
        elif name == META and len(given) >= 2:
            dtype, itemsize = _kind(given[0], where)
            shape = _sizes(given[1], where)
            _elements(shape, itemsize, 0, where)
            return TorchTensor("", dtype, itemsize, shape, reason="meta tensor, no values")
        elif name == SPARSE and len(given) >= 2 and type(given[1]) is tuple and len(given[1]) >= 3:
            values = _described(given[1][1], where) if type(given[1][1]) is Call else bad("no values")
            shape = _sizes(given[1][2], where)
            _elements(shape, values.itemsize, 0, where)
            return TorchTensor("", values.dtype, values.itemsize, shape, reason="sparse tensor")
        else:
            bad(f"its description by {quoted(name)} is not complete")
    bad("its description is nested too deeply")


def _view(name: str, given: tuple[Any, ...], where: str) -> TorchTensor:
    if type(given[0]) is not Persistent:
        raise _bad(where, "no storage")
    key, dtype, itemsize, count = _storage(given[0], where)
    typed, told = REBUILDS[name]
    if typed >= 0:
        if len(given) <= typed:
            raise _bad(where, "no dtype")
        held = count * itemsize
        dtype, itemsize = _kind(given[typed], where)
        count = held // itemsize
        if count * itemsize != held:
            raise _bad(where, f"storage of {held} bytes is no whole number of {dtype}")
    shape, strides = _sizes(given[2], where), _sizes(given[3], where)
    if len(shape) != len(strides):
        raise _bad(where, f"{len(shape)} sizes, {len(strides)} strides")
    offset = given[1]
    if type(offset) is not int or offset < 0:
        raise _bad(where, "storage offset is no size")
    elements = _elements(shape, itemsize, count, where)
    repeats = any(axis > 1 and not stride for axis, stride in zip(shape, strides, strict=True))
    if elements:
        last = offset + sum((axis - 1) * stride for axis, stride in zip(shape, strides, strict=True))
        if last >= count:
            raise _bad(where, f"reaches element {last} of a storage of {count}")
    metadata = given[told] if 0 <= told < len(given) else None
    reason = None
    if name.endswith("qtensor"):
        reason = "quantized tensor, whose scales are not applied"
    elif repeats or elements > count:
        reason = f"view that repeats the values of a storage of {count}"
    elif isinstance(metadata, dict) and metadata.get("neg"):
        reason = "view that is negated when it is read"
    return TorchTensor("", dtype, itemsize, shape, strides, key, offset, count, reason)


def _storage(node: Persistent, where: str) -> tuple[str, str, int, int]:
    told = node.identity
    if type(told) is not tuple or len(told) < 5 or told[0] != "storage":
        raise _bad(where, "its storage is not described as one")
    key, count = told[2], told[4]
    if type(key) is not str or not key or type(count) is not int or not 0 <= count < _MOST_BYTES:
        raise _bad(where, "its storage has no key or no size")
    dtype, itemsize = _kind(told[1], where)
    return key, dtype, itemsize, count


def _kind(node: Any, where: str) -> tuple[str, int]:
    if type(node) is not Name or node.text not in KINDS:
        raise _bad(where, "its type of elements is unknown")
    return KINDS[node.text]


def _sizes(node: Any, where: str) -> tuple[int, ...]:
    if type(node) is Call and node.function == "torch.Size" and len(node.arguments) == 1:
        node = node.arguments[0]
    if type(node) not in (tuple, list) or len(node) > _MOST_AXES:
        raise _bad(where, f"its shape or strides are no list of at most {_MOST_AXES} sizes")
    # type(), for True is an int to isinstance.
    if not all(type(size) is int and 0 <= size < _MOST_BYTES for size in node):
        raise _bad(where, "a size or stride is negative or beyond 64 bits")
    return tuple(node)


def _elements(shape: tuple[int, ...], itemsize: int, count: int, where: str) -> int:
    elements = 1
    for axis in shape:
        elements *= axis or 1
        if elements * itemsize >= _MOST_BYTES:
            raise _bad(where, "shape has more bytes than 63 bits can count")
    if elements >= _MOST_ABSENT and (0 in shape or elements > count):
        raise _bad(where, f"shape of {elements} elements, of which the file holds {count}")
    return 0 if 0 in shape else elements
