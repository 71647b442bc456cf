"""PyTorch files that lie or attack: one line each, and nothing in them is ever run."""

import io
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from rct_ray.checkpoint import CheckpointError, RowReader, open_checkpoint, torch_pickle, torch_tensors

from .build import weights, write_index
from .torch_build import (
    PREFIX,
    Archive,
    Global,
    Persistent,
    Raw,
    Reduce,
    code,
    pickled,
    save_torch,
    save_tree,
    storage,
    text_of,
    view,
)


def check(path, fault):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert fault in message
    assert message.isprintable()
    assert len(message) < 1000


class Calls:
    """What an attacker pickles: a call that is made when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, exec, eval, __import__, getattr, open])
def test_a_pickle_that_calls_is_never_run_and_named(tmp_path, protocol, function):
    mark = tmp_path / "it-was-run"
    attack = Calls(function, f"touch {mark}")
    path = Archive(pickle.dumps({"w": attack}, protocol)).save(tmp_path / "w.pt")
    module = function.__module__ if protocol > 2 else function.__module__.replace("builtins", "__builtin__")
    check(path, f"its pickle has the name '{module}.{function.__name__}', which no tensor needs")
    assert not mark.exists()


def test_nothing_that_a_pickle_names_is_imported(tmp_path):
    (tmp_path / "rct_trap.py").write_text("raise SystemExit('imported')\n")
    path = save_tree(tmp_path / "w.pt", {"w": view(), "x": Global("rct_trap.x")})
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from rct_ray.checkpoint import open_checkpoint, CheckpointError\n"
        f"try: open_checkpoint({str(path)!r})\n"
        "except CheckpointError as fault: print(fault)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "the name 'rct_trap.x', which no tensor needs" in done.stdout


PICKLES = {
    "empty": (b"", "its pickle"),
    "no end": (pickled({"w": view()})[:-1], "its pickle is damaged"),
    "cut": (pickled({"w": view()})[:60], "its pickle is damaged"),
    "more after its end": (pickled({}) + b".", "1 bytes after its end"),
    "nothing at its end": (b"\x80\x02.", "no single value at its end"),
    "two values at its end": (b"\x80\x02NN.", "no single value at its end"),
    "noise": (b"\xff" * 50, "its pickle is damaged"),
    "instance of a class": (b"\x80\x02(ios\nsystem\n.", "'INST os system'"),
    "class by its value": (b"\x80\x02(N\x6f.", "the instruction 'OBJ'"),
    "extension": (b"\x80\x02\x82\x01.", "the instruction 'EXT1'"),
    "buffer": (b"\x80\x05\x97.", "the instruction 'NEXT_BUFFER'"),
    "text id": (b"\x80\x02P0\n.", "the instruction 'PERSID'"),
    "name that is a number": (b"\x80\x04K\x01K\x02\x93.", "a name that is no text"),
    "pop of nothing": (b"\x80\x020.", "without its operand"),
    "tuple across a mark": (b"\x80\x02N(\x85.", "without its operand"),
    "no mark": (b"\x80\x02t.", "without its mark"),
    "no memo": (b"\x80\x02h\x07.", "a reference to 7"),
    "call of a tuple": (b"\x80\x02))R.", "a call of what is no function"),
    "state of a number": (b"\x80\x02K\x01Nb.", "a state for what has none"),
    "items of a tuple": (b"\x80\x02)K\x01K\x02s.", "items for what is no dict"),
    "items of a number": (b"\x80\x02K\x01K\x02a.", "items for what is no list"),
    "half a pair": (b"\x80\x02}(K\x01u.", "items for what is no dict"),
    "key that is a list": (b"\x80\x02}]Ns.", "a key that is neither text nor a number"),
    "key twice": (pickled(Raw(b"}(" + 2 * (text_of("w") + b"N") + b"u")), "a duplicate key 'w'"),
    "integer of 78,000 digits": (b"\x80\x02\x8b\x00\x80\x00\x00" + b"\x7f" * 0x8000 + b".", "an integer of"),
    "text of 2**63 bytes": (b"\x80\x04\x8d" + (2**63 - 1).to_bytes(8, "little") + b"x.", "its pickle is damaged"),
    "pairs that are none": (
        pickled(Reduce(Global("collections.OrderedDict"), ([3],))),
        "an OrderedDict of what are no pairs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_bad_pickle(tmp_path, case):
    raw, fault = PICKLES[case]
    check(Archive(raw).save(tmp_path / "w.pt"), fault)


TENSORS = {
    "no storage": (Reduce(view().function, (None, 0, (2, 3), (3, 1))), "no storage"),
    "storage that is missing": (view("9"), "storage '9' is not in the file"),
    "storage elsewhere": (view("../byteorder"), "storage '../byteorder' is not in the file"),
    "storage that is too short": (view(count=7), "has 24 bytes, not the 28 of 7 elements"),
    "storage that is too long": (view(shape=(1, 3), count=5), "has 24 bytes, not the 20 of 5 elements"),
    "storage of 2**63 bytes": (view(count=2**61, shape=(2**60, 2)), "shape has more bytes than 63 bits"),
    "storage of 2**62 bytes": (view(count=2**60), "has 24 bytes, not the"),
    "key that is a number": (view(0), "no key or no size"),
    "key that is empty": (view(""), "no key or no size"),
    "count below zero": (view(count=-6), "no key or no size"),
    "count that is true": (view(count=True), "no key or no size"),
    "no such type": (view(kind="torch.Size"), "its type of elements is unknown"),
    "identity that is none": (
        Reduce(view().function, (Persistent("0"), 0, (2, 3), (3, 1))),
        "not described as one",
    ),
    "offset past the end": (view(offset=1), "reaches element 6 of a storage of 6"),
    "offset below zero": (view(offset=-1), "storage offset is no size"),
    "offset beyond 64 bits": (view(offset=2**64), "reaches element 18446744073709551621"),
    "offset that is text": (view(offset="0"), "storage offset is no size"),
    "stride below zero": (view(offset=5, strides=(-3, -1)), "a size or stride is negative"),
    "stride past the end": (view(strides=(4, 1)), "reaches element 6 of a storage of 6"),
    "stride of 2**62": (view(strides=(2**62, 1)), "reaches element"),
    "stride beyond 64 bits": (view(strides=(2**64, 1)), "beyond 64 bits"),
    "fewer strides": (view(strides=(1,)), "2 sizes, 1 strides"),
    "size below zero": (view(shape=(-2, -3)), "a size or stride is negative"),
    "size that is true": (view(shape=(True, 3)), "a size or stride is negative"),
    "size beyond 64 bits": (view(shape=(2**64, 3)), "beyond 64 bits"),
    "shape that is text": (view(shape="23"), "no list of at most 64 sizes"),
    "10**9 elements without data": (view(shape=(10**9, 1), strides=(1, 1)), "reaches element 999999999"),
    "10**18 elements by repeating": (
        view(shape=(10**9, 10**9), strides=(0, 0)),
        "shape of 1000000000000000000 elements, of which the file holds 6",
    ),
    "no rows of 10**18 columns": (view(shape=(0, 10**18), strides=(1, 1)), "of which the file holds 6"),
    "product beyond 64 bits": (view(shape=(2**40, 2**40), strides=(0, 0)), "more bytes than 63 bits"),
    "65 axes": (view(shape=(1,) * 65, strides=(1,) * 65), "no list of at most 64 sizes"),
    "too few arguments": (Reduce(view().function, ()), "is not complete"),
    "wrapped without end": (
        Raw(code(view()) + b"q\x00" + b"0" + b"".join(
            code(Global("torch._utils._rebuild_parameter")) + b"h\x00" + b"\x85Rq\x00" + b"0" for _ in range(65)
        ) + b"h\x00"),
        "nested too deeply",
    ),
    "meta tensor of 10**12 elements": (
        Reduce(
            Global("torch._utils._rebuild_meta_tensor_no_storage"), (Global("torch.float32"), (10**12,), (1,))
        ),
        "of which the file holds 0",
    ),
    "not a whole number of elements": (
        Reduce(
            Global("torch._utils._rebuild_tensor_v3"),
            (storage("0", 23, "torch.storage.UntypedStorage"), 0, (5,), (1,), False, None, Global("torch.float32")),
        ),
        "storage of 23 bytes is no whole number of F32",
    ),
    "half a surrogate pair": ({"\ud800": view()}, "half a surrogate pair in its name"),
    "name twice": ({"a.b": view(), "a": {"b": view()}}, "tensor 'a.b' is there twice"),
    "name of 20,000": ({"a" * 20_000: view()}, "names that are too long"),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_bad_tensor(tmp_path, case):
    tree, fault = TENSORS[case]
    check(save_tree(tmp_path / "w.pt", tree), fault)


def nested(depth):
    tree = view()
    for _ in range(depth):
        tree = Raw(b"}" + text_of("a") + code(tree) + b"s")
    return tree


def test_nesting(tmp_path):
    assert len(open_checkpoint(save_tree(tmp_path / "w.pt", nested(64))).tensors) == 1
    check(save_tree(tmp_path / "deep.pt", nested(65)), "nested more than 64 deep")
    check(Archive(b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".").save(tmp_path / "x.pt"), "64 deep")
    check(Archive(b"\x80\x02]q\x00h\x00a.").save(tmp_path / "itself.pt"), "64 deep")


def test_names_with_control_characters_are_kept_and_shown_escaped(tmp_path, cli):
    names = ["\x1b[2J", "a\0b", "line\nend", "\u202eturned"]
    path = save_tree(tmp_path / "w.pt", {name: view() for name in names})
    assert [entry.name for entry in open_checkpoint(path).tensors] == names
    status, out, _ = cli("inspect", path)
    assert status == 0
    assert not set(out) & {"\x1b", "\0", "\u202e"}
    check(save_tree(tmp_path / "bad.pt", {"\x1b[2J": view("9")}), r"tensor '\x1b[2J': storage '9'")


# Each list holds the one before it ten times, so that 10**40 values are described by a kilobyte.
TEN = b"".join(b"q\x000](" + b"h\x00" * 10 + b"e" for _ in range(40)) + b"."
BOMBS = {
    "lists of tensors": (b"\x80\x02" + code(view()) + TEN, "more than 99 tensors, counted as often"),
    "lists of nothing": (b"\x80\x02N" + TEN, "more than 9999 values, counted as often"),
    "instructions": (b"\x80\x04" + b"N0" * 10_000 + b"N.", "more than 9999 instructions"),
    "dicts": (b"\x80\x04(" + b"}" * 10_000 + b"t.", "more than 9999 instructions"),
    "long names": (
        pickled({"a" * 1000: {f"{n}": view() for n in range(10)}}),
        "names that are too long",
    ),
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_within_the_pickle(tmp_path, monkeypatch, case):
    monkeypatch.setattr(torch_pickle, "MOST_INSTRUCTIONS", 9999)
    monkeypatch.setattr(torch_tensors, "_MOST_STEPS", 9999)
    monkeypatch.setattr(torch_tensors, "_MOST_TENSORS", 99)
    monkeypatch.setattr(torch_tensors, "_MOST_TEXT", 9999)
    raw, fault = BOMBS[case]
    check(Archive(raw).save(tmp_path / "w.pt"), fault)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{PREFIX}data.pkl", bytes(200 << 20))
    tracemalloc.start()
    try:
        check(path, "compression method 8 is not read")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_long_pickle(tmp_path):
    check(Archive(bytes((64 << 20) + 1)).save(tmp_path / "w.pt"), "over 67108864; save the weights alone")


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
GOOD = Archive(pickled({"w": view()}))


def patched(signature, offset, value, raw=None):
    raw = bytearray(raw or GOOD.raw())
    start = raw.index(signature) + offset
    raw[start : start + len(value)] = value
    return bytes(raw)


def with_member(name, content=b"x"):
    stream = io.BytesIO(GOOD.raw())
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


ZIPS = {
    "nothing": (lambda: b"", "empty file"),
    "text": (lambda: b"hello, world", "no zip file of PyTorch"),
    "bare pickle": (lambda: pickle.dumps({"w": 1}), "no zip file of PyTorch: only those are read"),
    "before 1.6": (
        lambda: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2),
        "its format from before 1.6, a bare pickle: only those are read; load it with torch and save it anew",
    ),
    "end cut": (lambda: GOOD.raw()[:-30], "zip directory"),
    "half": (lambda: GOOD.raw()[: len(GOOD.raw()) // 2], "zip directory"),
    "front": (lambda: b"PK\x03\x04" + bytes(100), "zip directory"),
    "no pickle": (
        lambda: Archive(b"").raw().replace(b"data.pkl", b"data.abc"),
        "no NAME/data.pkl in the zip",
    ),
    "two pickles": (lambda: with_member("other/data.pkl"), "2 times NAME/data.pkl in the zip"),
    "TorchScript": (lambda: with_member(f"{PREFIX}constants.pkl"), "TorchScript, a program"),
    "deflated": (lambda: GOOD.raw(zipfile.ZIP_DEFLATED), "compression method 8 is not read"),
    "bzip2": (lambda: GOOD.raw(zipfile.ZIP_BZIP2), "compression method 12 is not read"),
    "encrypted": (lambda: patched(CENTRAL, 8, b"\1"), "encrypted"),
    "methods disagree": (lambda: patched(LOCAL, 8, b"\x08"), "disagree"),
    "sizes disagree": (lambda: patched(LOCAL, 22, b"\x01"), "has other sizes than the zip directory"),
    "local extra is longer": (lambda: patched(LOCAL, 28, b"\x01"), "its local header leads past its end"),
    "names disagree": (lambda: patched(LOCAL, 30, b"A"), "has another name"),
    "member is too long": (lambda: patched(CENTRAL, 20, b"\xff\xff\xff\x7f" * 2), "lies outside the file"),
    "member's two sizes": (
        lambda: patched(LOCAL, 22, b"\xff" * 4, patched(CENTRAL, 24, b"\x01\x00")),
        "bytes but 1 bytes long",
    ),
    "member lies far away": (lambda: patched(CENTRAL, 42, b"\xf0\xff\xff\x7f"), "lies outside the file"),
    "member twice": (lambda: with_member(f"{PREFIX}data/0"), "duplicate member 'archive/data/0'"),
    "pickle's checksum": (lambda: GOOD.raw().replace(b"Storage", b"storage", 1), "fails its checksum"),
    "name upwards": (lambda: with_member("../../etc/passwd"), "member '../../etc/passwd' leads elsewhere"),
    "name upwards inside": (lambda: with_member(f"{PREFIX}data/../x"), "leads elsewhere"),
    "name absolute": (lambda: with_member("/etc/passwd"), "member '/etc/passwd' leads elsewhere"),
    "name with backslashes": (lambda: with_member("..\\..\\x"), "leads elsewhere"),
    "name with an escape": (lambda: with_member("/\x1b[2J"), r"member '/\x1b[2J' leads elsewhere"),
    "big endian": (
        lambda: Archive(pickled({"w": view()}), extra={f"{PREFIX}byteorder": b"big"}).raw(),
        "byte order b'big', not little",
    ),
    "byte order of a stranger": (
        lambda: Archive(pickled({"w": view()}), extra={f"{PREFIX}byteorder": b"\x1b[2J" * 100}).raw(),
        "byte order",
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", ZIPS)
def test_bad_zip(tmp_path, case):
    make, fault = ZIPS[case]
    path = tmp_path / "w.pt"
    path.write_bytes(make())
    check(path, fault)


def test_members_that_overlap(tmp_path):
    inner = Archive(pickled({"w": view()})).raw()
    # A record whose content is another record, local header and all: the directory names both.
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{PREFIX}data.pkl", pickled({"w": view()}))
        archive.writestr(f"{PREFIX}data/0", inner)
        outer = archive.getinfo(f"{PREFIX}data/0")
        start = outer.header_offset + 30 + len(outer.filename)
        hidden = zipfile.ZipFile(io.BytesIO(inner)).getinfo(f"{PREFIX}data/0")
        hidden.filename = hidden.orig_filename = f"{PREFIX}data/0"
        hidden.header_offset += start
        twin = zipfile.ZipFile(io.BytesIO(inner)).getinfo(f"{PREFIX}byteorder")
        twin.header_offset += start
        archive.filelist.append(twin)
        archive._didModify = True
    path = tmp_path / "w.pt"
    path.write_bytes(stream.getvalue())
    check(path, "overlaps the one before it")


@pytest.mark.parametrize(
    "name", ["../m.bin", "/etc/m.bin", "sub/m.bin", "..\\m.bin", "m.bin\n", "m\0.bin", "m.npz", ".."]
)
def test_an_index_names_files_of_its_directory_alone(tmp_path, name):
    save_torch(tmp_path / "m.bin", {"a": weights(4, 4)})
    index = write_index(tmp_path, {"a": name}, "pytorch_model.bin.index.json")
    check(index, "is not the plain name of a .bin file; do not trust this index")


def test_a_link_out_of_the_directory(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    save_torch(outside / "m.bin", {"a": weights(4, 4)})
    (inside / "pytorch_model.bin").symlink_to(outside / "m.bin")
    write_index(inside, {"a": "pytorch_model.bin"}, "pytorch_model.bin.index.json")
    check(inside, "outside its directory")


def test_a_tensor_that_is_not_in_its_shard(tmp_path):
    save_torch(tmp_path / "m.bin", {"a": weights(4, 4)})
    index = write_index(tmp_path, {"b": "m.bin"}, "pytorch_model.bin.index.json")
    check(index, "tensor 'b' is not in shard 'm.bin'")


def test_a_view_of_a_file_that_was_cut_since(tmp_path):
    base = np.arange(6000, dtype="<f4")
    tree = {"w": view("0", 0, (3, 2000), (1, 3), 6000)}
    path = save_tree(tmp_path / "w.pt", tree, **{"0": base.tobytes()})
    entry = open_checkpoint(path).tensors[0]
    os.truncate(path, 5000)
    with pytest.raises(CheckpointError, match="changed since it was opened"):
        RowReader(entry)


def test_a_module_pickled_whole_is_refused_with_advice(tmp_path):
    tree = {"net": Reduce(Global("my_project.Net"), ())}
    check(
        save_tree(tmp_path / "w.pt", tree),
        "the name 'my_project.Net', which no tensor needs (nothing was run); save",
    )


def test_refusals_reach_the_command_line_as_one_line(tmp_path, cli):
    path = save_tree(tmp_path / "w.pt", {"w": Reduce(Global("os.system"), ("true",))})
    status, out, error = cli("run", path, "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert "the name 'os.system', which no tensor needs (nothing was run)" in error
    assert not (tmp_path / "out").exists()
