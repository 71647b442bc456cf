"""Bad input to `reconstruct`, `verify` and `size`: one line, exit status 2, and nothing written."""

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

import rct_ray
from rct_ray import RebuildError


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    directory = tmp_path_factory.mktemp("refused") / "run"
    rct_ray.run(tiny, directory)
    return directory


@pytest.fixture
def refused(cli, tmp_path):
    """Run a command; it must end in one line with some words, and leave the output's directory as it was."""
    place = tmp_path / "place"
    place.mkdir()

    def call(*arguments, says, status=2):
        before = {path.name: path.read_bytes() for path in place.iterdir()}
        outcome, out, error = cli(*arguments)
        assert (outcome, out) == (status, ""), error
        assert error.startswith("rct-ray: ")
        assert error.count("\n") == 1, error
        for word in says:
            assert word in error, error
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before

    call.out = place / "out.safetensors"
    return call


@pytest.mark.parametrize("level", [-1, 5, 99])
def test_no_such_level(refused, run, level):
    refused(
        "reconstruct", run, f"--level={level}", "-o", refused.out, says=[f"no level {level}", "levels 0 to 4"]
    )


def test_not_a_run(refused, tmp_path):
    refused(
        "reconstruct", tmp_path, "--level", 1, "-o", refused.out, says=["manifest.json", "not a finished run"]
    )
    refused("reconstruct", tmp_path / "x", "--level", 1, "-o", refused.out, says=["no such directory"])
    refused("size", tmp_path, says=["not a finished run"])
    refused("verify", tmp_path, tmp_path, tmp_path, says=["not a finished run"])


def test_options_that_make_no_sense(refused, run):
    base = ("reconstruct", run, "--level", 1, "-o")
    refused(*base, refused.out, "--dtype", "int8", says=["float32", "'int8'"])
    refused(*base, refused.out, "--max-shard-size", "much", says=["'much' is no size"])
    refused(*base, refused.out, "--max-shard-size", "0", says=["max-shard-size must be at least 1"])
    refused(*base, refused.out.with_suffix(".bin"), says=["ends in .safetensors"])
    refused(*base, refused.out.parent / "none" / "out.safetensors", says=["there is no directory"])
    odd = refused.out.with_name("a b.safetensors")
    refused(*base, odd, "--max-shard-size", "1MB", says=["need an index"])


def test_a_file_that_is_there_is_never_overwritten(refused, cli, run, tmp_path):
    refused.out.write_text("precious")
    refused("reconstruct", run, "--level", 1, "-o", refused.out, says=["is there already"])
    sharded = ("reconstruct", run, "--level", 1, "--max-shard-size", "800KB", "-o")
    assert cli(*sharded, tmp_path / "two.safetensors")[0] == 0
    for path in tmp_path.glob("two*"):
        taken = refused.out.with_name(path.name)
        taken.write_text("precious")
        refused(*sharded, refused.out.with_name("two.safetensors"), says=[path.name, "is there already"])
        taken.unlink()


def test_an_original_that_is_gone_or_moved(refused, tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    shutil.copy(tiny, path)
    rct_ray.run(path, tmp_path / "run")
    moved = path.rename(tmp_path / "moved.safetensors")
    command = ("reconstruct", tmp_path / "run", "--level", 1, "-o", refused.out)
    refused(*command, says=["no such file", "if it was moved, say where"])
    refused(*command, "--original", tmp_path / "none", says=["no such file"])
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1, original=moved)
    assert rct_ray.verify(tmp_path / "run", moved, out).agrees


def test_an_original_that_was_changed(refused, save, tmp_path):
    weights = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    path = save({"w": weights})
    rct_ray.run(path, tmp_path / "run")
    command = ("reconstruct", tmp_path / "run", "--level", 1, "-o", refused.out)
    (out,) = rct_ray.reconstruct(tmp_path / "run", tmp_path / "out.safetensors", 1)
    save({"w": weights[:60]})
    refused(*command, says=["is not the checkpoint that was measured"])
    refused("verify", tmp_path / "run", path, path, says=["does not say which level"])
    # Of the same size and header: only the values tell.
    save({"w": weights * np.float32(1.001)})
    refused(*command, says=["'w' has other values", "norm"])
    refused("verify", tmp_path / "run", path, out, says=["'w' has other values", "norm"])
    save({"w": np.full_like(weights, np.nan)})
    refused(*command, says=["'w' has other values"])


def test_a_sample_of_rows(refused, tiny, tmp_path):
    rct_ray.run(tiny, tmp_path / "run", preset="paper67")
    command = ("reconstruct", tmp_path / "run", "--level", 1, "-o", refused.out)
    refused(*command, says=["--sample-rows", "on all rows"])
    refused("size", tmp_path / "run", says=["--sample-rows"])


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("dct(4) > quantize(4)", 2),
        ("dct(4) > gaussian(axis=rows) > pca(0.9)", 2),
        ("dct(4) > gaussian(axis=rows) > pca(0.9)", 3),
        ("gaussian(K=2, fit=free)", 1),
    ],
)
def test_codes_of_more_than_single_rows(refused, save, tmp_path, text, level):
    path = save({"w": np.random.default_rng(0).standard_normal((64, 32))})
    rct_ray.run(path, tmp_path / "run", tower=text)
    command = ("reconstruct", tmp_path / "run", "-o", refused.out, "--level")
    below = 0 if "free" in text else 1
    refused(*command, level, says=[f"level {level}", "can't be rebuilt", f"levels 0 to {below} can"])
    out = tmp_path / "below.safetensors"
    rct_ray.reconstruct(tmp_path / "run", out, below)
    assert rct_ray.verify(tmp_path / "run", path, out).agrees


def test_what_safetensors_can_not_hold(refused, tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, w=np.ones((8, 32), np.float32), counts=np.arange(5))
    rct_ray.run(path, tmp_path / "run")
    refused(
        "reconstruct",
        tmp_path / "run",
        "--level=1",
        "-o",
        refused.out,
        says=["'counts' can't be copied", "I64"],
    )


def test_a_disk_that_is_full_leaves_nothing(refused, run, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rct_ray.rebuild.writing.os.fsync", full)
    refused(
        "reconstruct", run, "--level=1", "-o", refused.out, says=["cannot write", "No space left"], status=1
    )


def test_what_a_killed_writer_left_is_not_touched(refused, run):
    refused.out.with_name("out.safetensors.tmp").write_text("half")
    refused(
        "reconstruct", run, "--level=1", "-o", refused.out, says=["out.safetensors.tmp is there", "delete it"]
    )


def test_an_interrupt_leaves_nothing(run, tmp_path, program, environment):
    out = tmp_path / "place" / "out.safetensors"
    out.parent.mkdir()
    slow = "import time, rct_ray.rebuild.weights as w; r = w._rounded; "
    slow += "w._rounded = lambda *a: (time.sleep(30), r(*a))[1]; from rct_ray.cli import main; main()"
    command = [program[0], "-c", slow, "reconstruct", run, "--level", "1", "-o", out]
    with subprocess.Popen(
        [str(part) for part in command], env=environment, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 30
        while not os.listdir(out.parent) and time.monotonic() < deadline:  # noqa: PTH208
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, b"interrupted\n")
    assert list(out.parent.iterdir()) == []


def test_decoders_that_are_not_there(run, tiny, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    opened = rct_ray.open_run(other)
    from rct_ray.rebuild.stored import StoredCodes

    codes = StoredCodes(opened, None, 2)
    with pytest.raises(RebuildError, match="no components of level 2 of 'none'"):
        codes.code("none", 256)
