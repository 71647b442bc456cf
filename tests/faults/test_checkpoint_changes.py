"""A checkpoint that is cut, replaced or written to while it is read: exit 2, one line that names it."""

import os
import shutil

import pytest

import rct_ray

from .lab import assert_one_line, assert_whole, units


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _truncate_to_nothing(path):
    os.truncate(path, 0)


def _replace(path):
    """Another file of the same size takes its place."""
    other = path.with_name("other")
    text = bytearray(path.read_bytes())
    text[-4096:] = bytes(4096)
    other.write_bytes(text)
    other.replace(path)


def _rewrite(path):
    """Other weights are written into the file."""
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))


def _touch(path):
    os.utime(path)


def _remove(path):
    path.unlink()


_CHANGES = [_truncate, _truncate_to_nothing, _replace, _rewrite, _touch, _remove]
_NAMES = [change.__name__.strip("_") for change in _CHANGES]


def _spoil_while_it_is_read(lab, checkpoint, change, *options):
    undisturbed = lab.directory / "undisturbed"
    rct_ray.run(checkpoint, undisturbed, engine="inprocess", workers=2)
    aside = lab.directory / "aside"
    shutil.copy2(checkpoint, aside)
    # What is read of a file that was replaced is still of the old one, so there has to be more to read.
    lab.faults(hold="layer[3-7]")
    run = lab.cli(checkpoint, *options)
    run.wait_for(lambda: len(lab.held()) == 2, what="two shards that are half read")
    change(checkpoint)
    lab.go()
    status, error = run.finish()
    assert status == 2, error
    assert str(checkpoint) in assert_one_line(error)
    assert not lab.out.exists()
    aside.replace(checkpoint)
    status, error = lab.resume(checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert_whole(lab.out, undisturbed)


@pytest.mark.parametrize("change", _CHANGES, ids=_NAMES)
def test_in_process(lab, own_checkpoint, change):
    _spoil_while_it_is_read(lab, own_checkpoint, change, "--engine", "inprocess", "--workers", "2")


@pytest.mark.ray
@pytest.mark.parametrize("change", [_truncate, _replace, _touch], ids=["truncate", "replace", "touch"])
def test_on_ray(lab, cluster, own_checkpoint, change):
    cluster.add(2)
    _spoil_while_it_is_read(lab, own_checkpoint, change, "--address", cluster.address, "--workers", "2")


def test_changed_after_a_resumed_part(lab, own_checkpoint):
    """Some units were kept, then the checkpoint changes in the resumed run: they are of no use any more."""
    lab.faults(hold="layer3")
    run = lab.cli(own_checkpoint, "--engine", "inprocess", "--workers", "2")
    run.wait_for(lambda: len(list(lab.out.glob("units/*/*.unit"))) > 4, what="units")
    run.end()
    run = lab.cli(own_checkpoint, "--engine", "inprocess", "--resume")
    run.wait_for(lambda: len(lab.held()) > 1, what="a shard that is half read")
    _touch(own_checkpoint)
    lab.go()
    status, error = run.finish()
    assert status == 2, error
    said = assert_one_line(error, extra=1)
    assert str(own_checkpoint) in said
    assert not (lab.out / "manifest.json").exists()


@pytest.mark.ray
@pytest.mark.parametrize("engine", ["inprocess", "ray"])
def test_disk_fails(lab, cluster, own_checkpoint, own_undisturbed, engine):
    """The system is to blame, not the user's input: exit 1, and what was done is kept."""
    options = ["--engine", "inprocess"] if engine == "inprocess" else ["--address", cluster.address]
    if engine == "ray":
        cluster.add(1)
    lab.faults(unreadable="layer5")
    status, error = lab.cli(own_checkpoint, *options, "--workers", "1").finish()
    assert status == 1, error
    said = assert_one_line(error)
    assert said.endswith(f"{own_checkpoint}: input/output error; check its disk or mount"), said
    assert len(units(lab.out)) >= 4
    status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert_whole(lab.out, own_undisturbed)
