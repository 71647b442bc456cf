"""A disk that is full: exit 1 in one line, the units kept, and --resume once there is room."""

import contextlib
import shutil
import subprocess

import pytest

from .lab import LEFTOVERS, PROGRAM, assert_absent, assert_one_line, assert_whole, units

_RECORD = 530_000
_FULL = "No space left on device"


@pytest.fixture
def disk(lab):
    """A disk of its own for the run directory; call it with a size to make it larger or smaller."""
    place = lab.directory / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)

    lab.out = place / "out"
    try:
        yield resize
    finally:
        lab.end()
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("limit", [0, 8, 100, 10_000], ids="{}kB".format)
def test_files_that_may_not_grow(lab, own_checkpoint, own_undisturbed, limit):
    """RLIMIT_FSIZE: no file may be larger. 0 refuses the first; decoders.arrow outgrows 10 MB, or nothing does."""
    command = f'ulimit -f {limit}; exec "$@" >/dev/null'
    run = lab.start("bash", "-c", command, "-", *PROGRAM, "run", own_checkpoint, "--out", lab.out)
    status, error = run.finish()
    if status == 0:
        assert limit == 10_000
    elif limit:
        assert status == 1
        assert "File too large" in assert_one_line(error)
        assert_absent(lab.out)
        status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
        assert status == 0, error
    else:
        # Standard error is a file that may not grow, too.
        assert status
        assert_absent(lab.out)
        return
    assert_whole(lab.out, own_undisturbed)


@pytest.mark.parametrize("size", ["4k", "12k", "64k", "600k", "2m", "4m"])
def test_in_process(lab, own_checkpoint, own_undisturbed, disk, size):
    disk(size)
    status, error = lab.cli(own_checkpoint, "--engine", "inprocess").finish()
    assert status == 1
    line = assert_one_line(error)
    assert f"cannot write {lab.out}" in line
    assert _FULL in line
    assert_absent(lab.out)
    kept = len(units(lab.out))
    if kept:
        status, error = lab.cli(own_checkpoint).finish()
        assert status == 2
        assert "--resume" in assert_one_line(error)
    # Nothing of the size of a record is lost to what can't be used.
    assert sum(path.stat().st_size for path in lab.out.rglob("*.tmp")) == 0
    disk("64m")
    status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
    assert status == 0, error
    if kept:
        assert f"{kept} of 8 units" in error
    assert_whole(lab.out, own_undisturbed)


def test_full_again_and_again(lab, own_checkpoint, own_undisturbed, disk):
    """Each time a little more room, until the run is through: nothing of before is done again."""
    kept = 0
    for size in range(1, 30):
        disk(f"{size * 700}k")
        status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
        if status == 0:
            break
        assert status == 1
        assert _FULL in error
        assert_absent(lab.out)
        assert len(units(lab.out)) >= kept
        kept = len(units(lab.out))
    assert kept
    assert_whole(lab.out, own_undisturbed)


def test_full_while_the_tables_are_written(lab, own_checkpoint, own_undisturbed, disk):
    """All the records fit, the tables do not."""
    disk("64m")
    lab.faults(hold="layer7")
    run = lab.cli(own_checkpoint, "--engine", "inprocess", "--workers", "1")
    run.wait_for(lab.held, what="the last shard to be held")
    used = shutil.disk_usage(lab.out).used
    disk((used + 2 * _RECORD) // 1024 * 1024)
    with contextlib.suppress(OSError):
        (lab.directory / "disk" / "filler").write_bytes(bytes(_RECORD - 8000))
    lab.go()
    status, error = run.finish()
    assert status == 1, error
    assert _FULL in assert_one_line(error)
    assert len(units(lab.out)) >= 7
    assert {path.name for path in lab.out.iterdir()} <= LEFTOVERS
    disk("64m")
    status, error = lab.resume(own_checkpoint, "--engine", "inprocess")
    assert status == 0, error
    assert_whole(lab.out, own_undisturbed)


@pytest.mark.ray
def test_on_ray(lab, cluster, own_checkpoint, own_undisturbed, disk):
    cluster.add(2)
    disk("2m")
    status, error = lab.cli(own_checkpoint, "--address", cluster.address, "--workers", "2").finish()
    assert status == 1, error
    assert _FULL in assert_one_line(error)
    assert_absent(lab.out)
    kept = len(units(lab.out))
    assert kept
    disk("64m")
    status, error = lab.resume(own_checkpoint, "--address", cluster.address, "--workers", "2")
    assert status == 0, error
    assert f"{kept} of 8 units" in error
    assert_whole(lab.out, own_undisturbed)
