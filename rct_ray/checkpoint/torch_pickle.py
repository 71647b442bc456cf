"""The pickle in a PyTorch file, read as a description: nothing it names is ever imported or called.

Python's own disassembler (`pickletools`) splits the text into instructions; the few that a checkpoint needs
build plain containers and inert records of the calls that were asked for. Any name that no checkpoint needs
ends the reading.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rct_ray.checkpoint.errors import CheckpointError, quoted, reason

MOST_INSTRUCTIONS = 4_000_000
"""Each makes at most some two hundred bytes, beside the text itself."""

_MOST_INTEGER_BITS = 256

_MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}


@dataclass(frozen=True, slots=True)
class Name:
    """Something the pickle names, such as ``torch.FloatStorage``; never looked up."""

    text: str


@dataclass(slots=True)
class Call:
    """A call the pickle asks for, which is not made."""

    function: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, slots=True)
class Persistent:
    """What the pickle says of something that lies outside of it: a storage."""

    identity: Any


class _Damage(Exception):  # noqa: N818  (never leaves this module)
    pass


class _Machine:
    """The pickle machine's stack and memo, over inert values."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self._allowed = allowed
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, raw: bytes) -> Any:
        for count, (code, argument, position) in enumerate(pickletools.genops(raw)):
            if count >= MOST_INSTRUCTIONS:
                raise _Damage(f"more than {MOST_INSTRUCTIONS} instructions")
            name = code.name
            if name == "STOP":
                if position is not None and position + 1 != len(raw):
                    raise _Damage(f"{len(raw) - position - 1} bytes after its end")
                return self._only()
            if name not in _ACTIONS:
                told = f"{name} {argument}" if name == "INST" else name
                raise _Damage(f"the instruction {quoted(told)}, which no checkpoint needs (nothing was run)")
            _ACTIONS[name](self, argument)
        raise _Damage("no end")

    def _only(self) -> Any:
        if len(self._stack) != 1 or self._marks:
            raise _Damage("no single value at its end")
        return self._stack[0]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _integer(self, value: Any) -> None:
        # Reading a huge number is quick; its text and its hash, again and again, are not.
        if type(value) is int and value.bit_length() > _MOST_INTEGER_BITS:
            raise _Damage(f"an integer of {value.bit_length()} bits")
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise _Damage("an instruction without its operand")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._stack.append(value)
        return value

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise _Damage("an instruction without its mark")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise _Damage(f"a reference to {index}, which is not there")
        self._stack.append(self._memo[index])

    def _drop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def _drop_marked(self, _: Any) -> None:
        self._since_mark()

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._push({})
        self._set(items)

    def _set_one(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise _Damage("items for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not (key is None or type(key) in (str, int, float, bool, bytes)):
                raise _Damage("a key that is neither text nor a number")
            if key in target:
                raise _Damage(f"a duplicate key {quoted(str(key))}")
            target[key] = value

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise _Damage("items for what is no list")
        target.extend(items)

    def _append_one(self, _: Any) -> None:
        value = self._pop()
        self._append([value])

    def _name(self, argument: str) -> None:
        self._push_name(argument.replace(" ", "."))

    def _stack_name(self, _: Any) -> None:
        attribute, module = self._pop(), self._pop()
        if type(attribute) is not str or type(module) is not str:
            raise _Damage("a name that is no text")
        self._push_name(f"{module}.{attribute}")

    def _push_name(self, text: str) -> None:
        if text not in _MAPPINGS and not self._allowed(text):
            raise _Damage(f"the name {quoted(text)}, which no tensor needs (nothing was run)")
        self._push(Name(text))

    def _call(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise _Damage("a call of what is no function")
        self._push(_outcome(function.text, arguments))

    def _call_with_keywords(self, _: Any) -> None:
        keywords = self._pop()
        self._call(None)
        self._build_with(keywords)

    def _build(self, _: Any) -> None:
        self._build_with(self._pop())

    def _build_with(self, state: Any) -> None:
        # A dict's state is what a module keeps beside its weights (`_metadata`); it holds none.
        target = self._top()
        if type(target) is Call:
            target.state = state if target.state is None else (target.state, state)
        elif type(target) is not dict:
            raise _Damage("a state for what has none")

    def _persistent(self, _: Any) -> None:
        self._push(Persistent(self._pop()))


def _outcome(function: str, arguments: tuple[Any, ...]) -> Any:
    if function in _MAPPINGS:
        pairs = arguments[-1] if arguments else ()
        found = dict(pairs) if type(pairs) is dict else {}
        if type(pairs) in (list, tuple):
            for pair in pairs:
                if type(pair) not in (list, tuple) or len(pair) != 2 or type(pair[0]) is not str:
                    raise _Damage("an OrderedDict of what are no pairs")
                found[pair[0]] = pair[1]
        return found
    return Call(function, arguments)


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "NONE": lambda machine, argument: machine._push(None),
    "NEWTRUE": lambda machine, argument: machine._push(True),
    "NEWFALSE": lambda machine, argument: machine._push(False),
    "MARK": _Machine._mark,
    "EMPTY_DICT": lambda machine, argument: machine._push({}),
    "EMPTY_LIST": lambda machine, argument: machine._push([]),
    "EMPTY_SET": lambda machine, argument: machine._push([]),
    "EMPTY_TUPLE": lambda machine, argument: machine._push(()),
    "TUPLE": lambda machine, argument: machine._push(tuple(machine._since_mark())),
    "FROZENSET": lambda machine, argument: machine._push(tuple(machine._since_mark())),
    "LIST": lambda machine, argument: machine._push(machine._since_mark()),
    "DICT": _Machine._dict,
    "TUPLE1": lambda machine, argument: machine._tuple(1),
    "TUPLE2": lambda machine, argument: machine._tuple(2),
    "TUPLE3": lambda machine, argument: machine._tuple(3),
    "APPEND": _Machine._append_one,
    "APPENDS": lambda machine, argument: machine._append(machine._since_mark()),
    "ADDITEMS": lambda machine, argument: machine._append(machine._since_mark()),
    "SETITEM": _Machine._set_one,
    "SETITEMS": lambda machine, argument: machine._set(machine._since_mark()),
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_marked,
    "DUP": lambda machine, argument: machine._push(machine._top()),
    "GLOBAL": _Machine._name,
    "STACK_GLOBAL": _Machine._stack_name,
    "REDUCE": _Machine._call,
    "NEWOBJ": _Machine._call,
    "NEWOBJ_EX": _Machine._call_with_keywords,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
_ACTIONS |= {f"{size}BINUNICODE": _Machine._push for size in ("", "SHORT_")}
_ACTIONS |= {f"{size}BINBYTES": _Machine._push for size in ("", "SHORT_")}
_ACTIONS |= {f"{size}BINSTRING": _Machine._push for size in ("", "SHORT_")}
_ACTIONS |= dict.fromkeys(
    ("UNICODE", "BINUNICODE8", "BINBYTES8", "BYTEARRAY8", "FLOAT", "BINFLOAT"), _Machine._push
)
_ACTIONS |= dict.fromkeys(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _Machine._integer
)


def read_pickle(raw: bytes, where: str, allowed: Callable[[str], bool]) -> Any:
    """Read a pickle without running it.

    Parameters
    ----------
    raw : bytes
        The whole pickle.
    where : str
        Its file, for the message.
    allowed : callable
        Whether a dotted name may stand in it, beside those of mappings.

    Returns
    -------
    object
        Scalars, texts, dicts (whatever kind of mapping), lists (sets too), tuples, and `Name`, `Call` and
        `Persistent` for the rest. Containers may hold one another more than once, and themselves.
    """
    try:
        return _Machine(allowed).run(raw)
    except _Damage as fault:
        advice = "save the state_dict alone, or as safetensors, and trust no such file from strangers"
        raise CheckpointError(f"{where}: its pickle has {fault}; {advice}") from None
    except CheckpointError:
        raise
    except Exception as fault:
        # The disassembler raises ValueError, struct.error, UnicodeDecodeError and more for damaged text.
        raise CheckpointError(f"{where}: its pickle is damaged: {reason(fault)}; copy it anew") from None
