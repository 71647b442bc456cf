"""The command line: what it prints, and how it refuses what it can't do."""

import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from rct_ray.results import ResultsError, open_run


def raw_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def matrix(rows=4, width=8, begin=0, dtype="F32"):
    return {"dtype": dtype, "shape": [rows, width], "data_offsets": [begin, begin + 4 * rows * width]}


def refused(outcome, *words):
    """Exit 2 with one line that holds some words."""
    status, out, error = outcome
    assert (status, out) == (2, ""), error
    assert error.startswith("rct-ray: ")
    assert error.count("\n") == 1, error
    assert error.endswith("\n")
    for word in words:
        assert word in error, error


# What is done.


def test_run_prints_the_tower_and_says_where_it_is(cli, tiny, tmp_path):
    status, out, error = cli("run", tiny, "--out", tmp_path / "out")
    assert (status, error) == (0, f"written to {tmp_path / 'out'}\n")
    assert "tiny-step02500" in out
    assert "7 of 17 tensors measured" in out
    for heading in ("width 256: 4,352 rows", "width 1024: 256 rows", "model: 4,608 rows", "head.weight"):
        assert heading in out
    last = [line for line in out.splitlines() if line.startswith("•")]
    assert last[0].startswith("• Fixed point: level 2, 38,912 parameters (35.4x of 1,376,256 weights)")
    assert last[1].startswith("• Honest level: 0.")
    assert last[2].startswith("• Level 1 (gaussian) keeps 2.98% of the energy")
    assert open_run(tmp_path / "out", verify=True).levels.num_rows == 50
    assert cli("show", tmp_path / "out") == (0, out, "")


def test_the_preset_prints_the_table_of_the_seed(cli, tiny, tmp_path):
    status, out, _ = cli("run", tiny, "--preset", "paper67", "--out", tmp_path / "out")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["L0", "Raw", "weights", "131,072"] in [line[:4] for line in lines]
    assert ["L1", "L1", "amplitudes", "4,096", "32.00x", "32.0x"] in [line[:6] for line in lines]
    kept = open_run(tmp_path / "out").levels_of(scope="width")["n_keep"][2].as_py()
    (second,) = (line for line in lines if line[:1] == ["L2"])
    assert f"{512 * kept + 8 * kept + 8:,}" in second
    assert "512 rows of each width drawn (seed 7)" in out


def test_json_is_json(cli, tiny, save, tmp_path):
    def strict(text):
        return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))

    status, out, _ = cli("run", tiny, "--json", "--out", tmp_path / "out")
    assert status == 0
    printed = strict(out)
    assert printed["directory"] == str(tmp_path / "out")
    assert len(printed["levels"]) == 50
    assert len(printed["conclusions"]["tiny-step02500"]) == 6
    assert cli("show", tmp_path / "out", "--json") == (0, out, "")
    zeros = save({"zeros": np.zeros((20, 32), np.float32)})
    status, out, _ = cli("run", zeros, "--json", "--out", tmp_path / "zeros")
    assert status == 0
    strict(out)
    status, out, _ = cli("inspect", tiny, "--json")
    assert status == 0
    assert strict(out)["selected"] == 7


def test_inspect_lists_every_tensor(cli, tiny):
    status, out, error = cli("inspect", tiny, "--exclude", "pos*", "--columns", "256")
    assert (status, error) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines() if " BF16 " in line}
    assert len(lines) == 17
    assert lines["head.weight"].split()[1:] == ["BF16", "1024x256", "1,024", "256", "0.52", "yes"]
    assert "no: --exclude 'pos*'" in lines["pos_emb.weight"]
    assert "no: width 1024, not 256 (--columns)" in lines["blocks.0.mlp.2.weight"]
    assert "no: 1-D" in lines["ln_f.bias"]
    assert "5 of 17 tensors selected: 4,096 rows, 1,048,576 weights" in out


def test_inspect_is_no_error_where_nothing_would_be_selected(cli, tiny):
    status, out, _ = cli("inspect", tiny, "--columns", "99")
    assert status == 0
    assert "0 of 17 tensors selected" in out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["inspect", "--help"], ["show", "--help"]]
)
def test_help(cli, arguments):
    status, out, error = cli(*arguments)
    assert (status, error) == (0, "")
    assert out.lstrip().startswith("Usage: ")


def test_version(cli):
    from importlib.metadata import version

    assert cli("--version") == (0, f"rct-ray {version('rct-ray')}\n", "")


def test_without_arguments_it_helps(cli):
    status, out, error = cli()
    assert (status, out) == (2, "")
    assert error.lstrip().startswith("Usage: ")


def test_the_default_directory_is_named_after_the_checkpoint(cli, zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = cli("run", zoo)
    assert (status, error) == (0, "written to zoo.rct\n")
    assert open_run("zoo.rct").tensors.num_rows == 9


def test_control_characters_in_names_are_escaped(cli, tmp_path):
    nasty = "a\x1b[31m\nb\u202e"
    path = raw_file(tmp_path / "m.safetensors", {nasty: matrix()}, np.ones((4, 8), "f4").tobytes())
    for arguments in (
        ["inspect", path],
        ["run", path, "--out", tmp_path / "out"],
        ["show", tmp_path / "out"],
    ):
        status, out, error = cli(*arguments)
        assert status == 0
        assert "\x1b" not in out + error
        assert "\u202e" not in out + error
        assert r"a\x1b[31m\nb\u202e" in out
    refused(cli("run", path, "--tower", "dct(9)", "--out", tmp_path / "more"), r"a\x1b[31m\nb\u202e")
    bad = np.full((4, 8), np.nan, "f4").tobytes()
    path = raw_file(tmp_path / "n.safetensors", {nasty: matrix()}, bad)
    refused(cli("run", path, "--strict", "--out", tmp_path / "more"), r"a\x1b[31m\nb\u202e")


# What is refused.


def lying_headers():
    full = np.ones((4, 8), "f4").tobytes()
    return {
        "missing file": None,
        "empty": b"",
        "short": b"\x01\x02",
        "not JSON": struct.pack("<Q", 4) + b"{no}",
        "too long": struct.pack("<Q", 100_000_001) + b"{}",
        "longer than the file": struct.pack("<Q", 500) + b"{}",
        "truncated": ({"w": matrix()}, full[:-1]),
        "trailing": ({"w": matrix()}, full + b"x"),
        "shape": ({"w": {**matrix(), "shape": [4, 9]}}, full),
        "dtype": ({"w": {**matrix(), "dtype": "F33"}}, full),
        "overlap": ({"v": matrix(), "w": matrix(begin=64)}, full + full[:64]),
        "hole": ({"v": matrix(), "w": matrix(begin=130)}, full + b"12" + full),
        "negative": ({"w": {**matrix(), "data_offsets": [-128, 0]}}, full),
        "twice": (b'{"w":%s,"w":%s}' % ((json.dumps(matrix()).encode(),) * 2), full),
    }


@pytest.mark.parametrize("fault", lying_headers())
@pytest.mark.parametrize("command", ["run", "inspect"])
def test_bad_files(cli, tmp_path, command, fault):
    path, content = tmp_path / "m.safetensors", lying_headers()[fault]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        raw_file(path, *content)
    out = ["--out", tmp_path / "out"] if command == "run" else []
    refused(cli(command, path, *out), str(path), "; " if fault not in ("shape",) else "")
    assert not (tmp_path / "out").exists()


def test_directories_and_indexes(cli, save, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    refused(cli("run", tmp_path / "empty", "--out", out), "no checkpoint in directory", "*.safetensors")
    model = save({"w": np.ones((4, 8), np.float32)})
    index = tmp_path / "model.safetensors.index.json"
    for weight_map, words in (
        ({"w": "model.safetensors", "v": "gone.safetensors"}, ["gone.safetensors", "missing"]),
        ({"w": "../outside.safetensors"}, ["../outside.safetensors", "do not trust"]),
        ({"w": model.name, "v": model.name}, ["'v' is not in shard"]),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        refused(cli("run", index, "--out", out), str(index), *words)
        refused(cli("run", tmp_path, "--out", out), *words)
    assert not out.exists()


BAD_OPTIONS = {
    "--include=nothing*": ["no tensor selected", "7 of them matrices", "--include 'nothing*' meets 0"],
    "--exclude=*": ["no tensor selected", "--exclude '*' meets 7"],
    "--columns=99": ["no tensor selected", "256 (6), 1024 (1)"],
    "--columns=0": ["columns must be at least 1, not 0"],
    "--columns=many": ["'--columns'", "rct-ray --help"],
    "--sample-rows=0": ["sample-rows must be at least 1, not 0"],
    "--sample-rows=-5": ["sample-rows must be at least 1, not -5"],
    "--seed=-1": ["seed must be at least 0, not -1"],
    "--tower=gaussian(K=257)": ["gaussian(K=257) wants 257 components", "has 256 columns", "lower K"],
    "--tower=svd(2000)": ["svd(2000) wants 2000 components", "blocks.0.attn.c_attn.weight"],
    "--tower=gaussian > pca(0)": ["threshold must be above 0 and at most 1, not 0", "gaussian > pca(→0)"],
    "--tower=gaussian > pca(1.5)": ["not 1.5", "at character 16"],
    "--tower=gaussian > pca(nan)": ["not nan", "gaussian > pca(→nan)"],
    "--tower=gaussian > pac": ["unknown stage 'pac'", "did you mean pca?", "gaussian > →pac"],
    "--tower=gaussian >": ["expected a stage", "gaussian >→"],
    "--tower=gaussian(K=x)": ["K must be a whole number", "gaussian(K=→x)"],
    "--tower=": ["expected a stage", "at character 1"],
    "--tower=gaus\nsian": ["unknown stage 'gaus'", "→gaus"],
    "--preset=paper68": ["no preset 'paper68'; there is paper67"],
    "--metric=euclid": ["isometric or amplitude, not 'euclid'"],
    "--svd-bound=no": ["auto, always or never, not 'no'"],
    "--engine=spark": ["auto, inprocess or ray, not 'spark'"],
    "--workers=0": ["workers must be at least 1, not 0"],
    "--workers=two": ["'--workers'", "rct-ray --help"],
    "--engine=inprocess --address=10.0.0.1:6379": ["no use for --address 10.0.0.1:6379; use --engine ray"],
    "--driver-memory=lots": ["'lots' is no size"],
    "--pca=magic": ["'magic'"],
    "--unknown": ["--unknown", "rct-ray --help"],
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options(cli, tiny, tmp_path, options):
    given = options.split(" --")
    given[1:] = [f"--{option}" for option in given[1:]]
    refused(cli("run", tiny, *given, "--out", tmp_path / "out"), *BAD_OPTIONS[options])
    assert list(tmp_path.iterdir()) == []


def test_amplitudes_of_nearly_dependent_functions_are_refused(cli, tiny, tmp_path):
    tower = ("--tower", "gaussian(K=64, width=3) > pca", "--metric", "amplitude")
    refused(cli("run", tiny, *tower, "--out", tmp_path / "out"), "nearly dependent")
    assert not (tmp_path / "out").exists()


def test_missing_arguments_and_commands(cli, tiny):
    refused(cli("run"), "CHECKPOINT", "rct-ray --help")
    refused(cli("inspect"), "CHECKPOINT")
    refused(cli("show"), "DIR")
    refused(cli("march", tiny), "'march'")
    refused(cli("run", tiny, "--columns"), "--columns")


def test_the_same_checkpoint_twice(cli, tiny, tmp_path):
    assert cli("run", tiny, tiny, "--out", tmp_path / "out")[0] == 0
    assert len(open_run(tmp_path / "out").manifest["checkpoints"]) == 1


def test_directories_that_are_taken(cli, zoo, tmp_path):
    out = tmp_path / "out"
    assert cli("run", zoo, "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    refused(cli("run", zoo, "--out", out), str(out), "holds another run", "--out")
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    refused(cli("run", zoo, "--out", mine), str(mine), "not empty")
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    refused(cli("run", zoo, "--out", mine / "notes.txt"), "not a directory")
    refused(cli("run", zoo, "--out", mine / "notes.txt" / "deeper"), "notes.txt")
    (tmp_path / "fresh").mkdir()
    assert cli("run", zoo, "--out", tmp_path / "fresh")[0] == 0


def test_show_of_what_is_no_run(cli, tmp_path):
    refused(cli("show", tmp_path / "nowhere"), "no such directory", "nowhere")
    refused(cli("show", tmp_path), "no manifest.json")
    (tmp_path / "file").write_text("")
    refused(cli("show", tmp_path / "file"), "is a file")
    (tmp_path / "manifest.json").write_text("{")
    refused(cli("show", tmp_path), "is not JSON")


def test_show_of_a_run_that_lost_a_file(cli, zoo, tmp_path):
    cli("run", zoo, "--out", tmp_path / "out")
    (tmp_path / "out" / "levels.parquet").unlink()
    refused(cli("show", tmp_path / "out"), "levels.parquet is missing")


def test_weights_that_are_not_finite(cli, save, tmp_path):
    good, bad = np.ones((5, 32), np.float32), np.ones((5, 32), np.float32)
    bad[2, 3], bad[4] = np.nan, np.inf
    path, out = save({"bad": bad, "good": good}), tmp_path / "out"
    refused(cli("run", path, "--strict", "--out", out), "bad", str(path), "1 NaN and 32 Inf", "--strict")
    refused(cli("run", path, "--include", "bad", "--out", out), "is finite", "nothing to measure")
    assert not out.exists()
    status, said, _ = cli("run", path, "--out", out)
    assert status == 0
    assert "left out: bad holds 1 NaN and 32 Inf" in said
    assert "1 of 2 tensors measured" in said


def test_errors_of_ours_are_not_passed_off_as_the_users(cli, zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("rct_ray.sweep.measure", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("run", zoo, "--out", tmp_path / "out")


# Processes.


@pytest.fixture
def start(program, environment, tmp_path):
    """Start a command in a session of its own, marked so that every process that comes of it can be found."""
    begun = []

    def run(*arguments):
        process = subprocess.Popen(
            [*program, *map(str, arguments)],
            env={**environment, "RCT_TEST_MARK": str(tmp_path)},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        process.kill()
        process.wait()
    for pid in marked(tmp_path):
        os.kill(pid, signal.SIGKILL)


def marked(mark):
    """Processes that were started with a mark in their environment."""
    found, wanted = [], f"RCT_TEST_MARK={mark}\0".encode()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if wanted in (process / "environ").read_bytes() + b"\0":
                    found.append(int(process.name))
            except OSError:
                pass
    return found


def at_work(mark, out, engine):
    """Whether a run reads weights by now."""
    if engine == "inprocess":
        return out.exists()
    names = [Path(f"/proc/{pid}/cmdline") for pid in marked(mark)]
    return any(b"EncodeWorker.encode" in name.read_bytes() for name in names if name.exists())


def none_left(mark, seconds=20):
    end = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return not left


def test_exit_statuses_of_the_process(program, environment, tiny, tmp_path):
    for arguments, status in (["--version"], 0), (["inspect", tiny], 0), (["inspect", tmp_path / "no"], 2):
        done = subprocess.run(
            [*program, *map(str, arguments)], env=environment, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == status


@pytest.mark.ray
def test_a_run_on_its_own_ray_is_equal_to_the_byte_and_leaves_no_process(start, cli, tiny, tmp_path):
    process = start("run", tiny, "--engine", "ray", "--workers", "2", "--out", tmp_path / "ray")
    assert process.communicate(timeout=120)[1] == f"written to {tmp_path / 'ray'}\n"
    assert process.returncode == 0
    assert cli("run", tiny, "--engine", "inprocess", "--out", tmp_path / "inprocess")[0] == 0
    for name in ("levels.parquet", "tensors.parquet", "decoders.arrow"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "inprocess" / name).read_bytes()
    assert none_left(tmp_path)


@pytest.fixture
def vast(tmp_path):
    """Four gigabytes of zeros that take no room."""
    header = {"w": {"dtype": "F32", "shape": [1 << 20, 1024], "data_offsets": [0, 1 << 32]}}
    path = raw_file(tmp_path / "vast.safetensors", header)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (1 << 32))
    return path


@pytest.mark.parametrize("engine", ["inprocess", pytest.param("ray", marks=pytest.mark.ray)])
def test_ctrl_c(start, vast, tmp_path, engine):
    out = tmp_path / "out"
    # A tower of d x d moments: it would take minutes.
    process = start("run", vast, "--engine", engine, "--workers", "2", "--tower", "svd(64)", "--out", out)
    end = time.monotonic() + 60
    while not at_work(tmp_path, out, engine):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    # As a terminal does: to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    assert "Traceback" not in error
    assert error.splitlines()[-1] == "interrupted"
    assert none_left(tmp_path)
    with pytest.raises(ResultsError):
        open_run(out)
    if "nothing was written" in error:
        assert not out.exists()
    else:
        assert "--resume" in error
