"""What --resume takes up, what it does anew, and what it refuses."""

import dataclasses
import json
import os
import shutil
import signal
import zlib

import pytest

import rct_ray
from rct_ray.results import ResultsError

from .lab import Lab, assert_one_line, assert_whole, units, write_checkpoint

_UNITS = 8
_MAGIC = b"rct-ray unit 1\n"


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A checkpoint, its undisturbed run, and what a killed run left."""
    folder = tmp_path_factory.mktemp("killed")
    shapes = {f"layer{index}": (8_300, 256) for index in range(_UNITS)}
    checkpoint = write_checkpoint(folder / "model.safetensors", shapes, seed=1)
    rct_ray.run(checkpoint, folder / "undisturbed", engine="inprocess", workers=2)
    lab = Lab(folder)
    lab.faults(hold="layer6")
    run = lab.cli(checkpoint, "--engine", "inprocess", "--workers", "2")
    run.wait_for(lambda: len(units(lab.out)) == _UNITS - 1, what="all units but one")
    run.send(signal.SIGKILL)
    run.finish()
    lab.end()
    return folder


@pytest.fixture
def leftover(killed, tmp_path):
    """A copy of what the killed run left."""
    return shutil.copytree(killed / "out", tmp_path / "out")


@pytest.fixture
def resume(killed, leftover):
    """Go on with it in this process; what was said."""

    def go_on(checkpoint=killed / "model.safetensors", **settings):
        said = []
        options = {"engine": "inprocess", "workers": 2, "resume": True, "say": said.append}
        rct_ray.run(checkpoint, leftover, **options, **settings)
        return said

    return go_on


def kept(directory):
    """Records, and what they are of."""
    files = [*units(directory), directory / "unfinished.json"]
    return {path: path.read_bytes() for path in files}


def test_takes_up_what_is_there(killed, leftover, resume):
    assert resume() == ["model: 7 of 8 units were done before and are skipped"]
    assert_whole(leftover, killed / "undisturbed")


def test_takes_up_with_other_workers_and_another_engine(killed, leftover):
    """Who does the work is no part of what the run is of."""
    lab = Lab(leftover.parent)
    try:
        status, error = lab.resume(killed / "model.safetensors", "--engine", "inprocess", "--workers", "7")
    finally:
        lab.end()
    assert status == 0, error
    assert_whole(leftover, killed / "undisturbed")


_CHANGED = [
    ("tower", "gaussian(K=8)", "gaussian(K=8)"),
    ("metric", "amplitude", '"isometric", is now "amplitude"'),
    ("seed", 8, "7, is now 8"),
    ("sample_rows", 512, "null, is now 512"),
    ("include", ("layer*",), '[], is now ["layer*"]'),
    ("columns", 256, "null, is now 256"),
    ("shard_bytes", 1 << 20, f", is now {1 << 20}"),
    ("block_bytes", 1 << 18, f", is now {1 << 18}"),
    ("pca", "tsqr", '"auto", is now "tsqr"'),
    ("strict", True, "false, is now true"),
]


@pytest.mark.parametrize(("setting", "value", "said"), _CHANGED, ids=[row[0] for row in _CHANGED])
def test_refuses_another_configuration(leftover, resume, setting, value, said):
    before = kept(leftover)
    with pytest.raises(ResultsError) as refusal:
        resume(**{setting: value})
    assert f"cannot resume {leftover}: configuration {setting} was " in str(refusal.value)
    assert said in str(refusal.value)
    assert kept(leftover) == before


def test_every_setting_is_looked_at():
    """A setting that is new must be refused when it changes, too: it is, if the manifest's dict has it."""
    fields = {field.name for field in dataclasses.fields(rct_ray.RunConfig)} - {"stages"}
    assert set(rct_ray.RunConfig().as_dict()) == fields


def _touched(path):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def _grown(path):
    status = path.stat()
    text = path.read_bytes()
    size = int.from_bytes(text[:8], "little")
    path.write_bytes((size + 8).to_bytes(8, "little") + text[8 : 8 + size] + b" " * 8 + text[8 + size :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _renamed_tensor(path):
    status = path.stat()
    with path.open("r+b") as file:
        head = file.read(4096)
        file.seek(0)
        file.write(head.replace(b"layer3", b"Layer3", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "said"),
    [(_touched, "mtime_ns"), (_grown, "bytes"), (_renamed_tensor, "header_sha256")],
    ids=["mtime", "size", "header"],
)
def test_refuses_another_input(leftover, resume, killed, change, said):
    checkpoint = killed / "model.safetensors"
    aside = killed / "aside"
    shutil.copy2(checkpoint, aside)
    before = kept(leftover)
    try:
        change(checkpoint)
        with pytest.raises(ResultsError, match=rf"file {checkpoint} {said} was .*, is now "):
            resume()
    finally:
        aside.replace(checkpoint)
    assert kept(leftover) == before
    resume()
    assert_whole(leftover, killed / "undisturbed")


def test_refuses_another_checkpoint(leftover, resume, own_checkpoint):
    before = kept(leftover)
    with pytest.raises(ResultsError, match=r"model\.safetensors"):
        resume(own_checkpoint)
    assert kept(leftover) == before


def test_refuses_another_version(leftover, resume):
    identity = leftover / "unfinished.json"
    document = json.loads(identity.read_text())
    now = document["rct-ray"]
    identity.write_text(json.dumps({**document, "rct-ray": "0.0.9"}))
    with pytest.raises(ResultsError, match=rf'rct-ray was "0\.0\.9", is now "{now}"'):
        resume()


@pytest.mark.parametrize("text", [None, b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"file": 1}'])
def test_refuses_records_of_it_does_not_know_what(leftover, resume, text):
    identity = leftover / "unfinished.json"
    if text is None:
        identity.unlink()
    else:
        identity.write_bytes(text)
    with pytest.raises(ResultsError, match="cannot resume"):
        resume()
    assert len(units(leftover)) == _UNITS - 1


def _valid(record):
    return _MAGIC + zlib.crc32(record).to_bytes(4, "little") + record


_JUNK = {
    "empty": b"",
    "magic alone": _MAGIC,
    "zeros": bytes(600_000),
    "noise": os.urandom(1000),
    "no record": _valid(b""),
    "no shards": _valid(b"[]\n"),
    "no list": _valid(b"null\n"),
    "no objects": _valid(b"[1]\n"),
    "no fields": _valid(b"[{}]\n"),
    "a mapping": _valid(b"{}\n"),
    "a nest": _valid(b"[" * 100_000 + b"\n"),
    "odd bytes": _valid(b"[]\n" + bytes(7)),
    "no utf-8": _valid(b"\xff\xff\n"),
}


@pytest.mark.parametrize("junk", _JUNK.values(), ids=_JUNK)
def test_does_a_broken_record_anew(killed, leftover, resume, junk):
    units(leftover)[2].write_bytes(junk)
    assert ": 6 of 8 units" in resume()[0]
    assert_whole(leftover, killed / "undisturbed")


@pytest.mark.parametrize("keep", [0, 1, 14, 18, 19, 500, 100_000, -1])
def test_does_a_truncated_record_anew(killed, leftover, resume, keep):
    record = units(leftover)[2]
    record.write_bytes(record.read_bytes()[:keep])
    assert ": 6 of 8 units" in resume()[0]
    assert_whole(leftover, killed / "undisturbed")


@pytest.mark.parametrize("place", [0, 15, 20, 300, 100_000, -1])
def test_does_a_record_with_a_flipped_bit_anew(killed, leftover, resume, place):
    record = units(leftover)[2]
    content = bytearray(record.read_bytes())
    content[place] ^= 1
    record.write_bytes(content)
    assert ": 6 of 8 units" in resume()[0]
    assert_whole(leftover, killed / "undisturbed")


def test_does_a_record_of_another_unit_anew(killed, leftover, resume):
    first, second = units(leftover)[:2]
    first.write_bytes(second.read_bytes())
    assert ": 6 of 8 units" in resume()[0]
    assert_whole(leftover, killed / "undisturbed")


@pytest.mark.parametrize("shape", [(3_000, 256), (8_300, 128), (16_600, 128)], ids=str)
def test_does_a_record_of_another_plan_anew(killed, leftover, resume, lab, shape):
    """A unit of the same number, whole in itself, of other weights."""
    lab.faults(hold="last")
    other = write_checkpoint(lab.directory / "other.safetensors", {"layer0": shape, "last": (17_000, 256)})
    run = lab.cli(other, "--engine", "inprocess", "--out", lab.directory / "other")
    try:
        foreign = run.wait_for(lambda: units(lab.directory / "other"), what="a unit")[0].read_bytes()
    finally:
        run.end()
    units(leftover)[0].write_bytes(foreign)
    assert ": 6 of 8 units" in resume()[0]
    assert_whole(leftover, killed / "undisturbed")


def test_ignores_what_a_killed_write_left(killed, leftover, resume):
    record = units(leftover)[2]
    record.with_suffix(".tmp").write_bytes(record.read_bytes()[:1000])
    record.unlink()
    assert ": 6 of 8 units" in resume()[0]
    assert_whole(leftover, killed / "undisturbed")


def test_without_resume_says_so(killed, leftover, lab):
    before = kept(leftover)
    status, error = lab.cli(killed / "model.safetensors").finish()
    assert status == 2
    line = assert_one_line(error)
    assert "7 units of it done: go on with --resume" in line
    assert kept(leftover) == before


def test_refuses_a_finished_run(killed, lab):
    shutil.copytree(killed / "undisturbed", lab.out)
    status, error = lab.resume(killed / "model.safetensors")
    assert status == 2
    assert "holds a finished run: there is nothing to resume" in assert_one_line(error)
    assert_whole(lab.out, killed / "undisturbed")


def test_without_anything_to_take_up_starts_anew(killed, lab):
    status, error = lab.resume(killed / "model.safetensors", "--engine", "inprocess")
    assert status == 0
    assert "units were done before" not in error
    assert_whole(lab.out, killed / "undisturbed")


def test_two_at_once(killed, leftover, lab):
    lab.faults(hold="layer6")
    first = lab.cli(killed / "model.safetensors", "--engine", "inprocess", "--resume")
    first.wait_for(lab.held, what="a held shard")
    status, error = lab.cli(killed / "model.safetensors", "--engine", "inprocess", "--resume").finish()
    assert status == 2
    assert "being written by another run" in assert_one_line(error)
    lab.go()
    status, error = first.finish()
    assert status == 0, error
    assert_whole(leftover, killed / "undisturbed")
