"""A run is written whole or not at all."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rct_ray.results import (
    DECODERS,
    LEVELS,
    TABLES,
    TENSORS,
    ResultsError,
    RunWriter,
    file_sha256,
    open_run,
    unfinished,
)
from rct_ray.results.layout import MARKER

ROOT = Path(__file__).parents[2]


def tree(directory):
    """Every path below a directory, with the files' contents."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


def run_python(code, *args):
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_manifest_lists_what_was_written(tmp_path, write):
    directory = write(tmp_path / "a" / "b" / "run")
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["version"] == "0.1.0"
    assert [output["path"] for output in manifest["outputs"]] == [
        "levels.parquet",
        "tensors.parquet",
        "shards.parquet",
        "decoders.arrow",
    ]
    for output in manifest["outputs"]:
        path = directory / output["path"]
        assert set(output) == {"path", "table", "rows", "bytes", "sha256"}
        assert output["rows"] == 1
        assert output["bytes"] == path.stat().st_size
        assert output["sha256"] == file_sha256(path)
    names = {path.name for path in directory.iterdir()}
    assert names == {output["path"] for output in manifest["outputs"]} | {"manifest.json"}


def test_same_rows_same_bytes(tmp_path, write):
    assert tree(write(tmp_path / "one")) == tree(write(tmp_path / "two"))


def test_parts_get_plain_and_distinct_names(tmp_path, make):
    labels = [
        "step00010",
        "runs/a.safetensors",
        "runs_a.safetensors",
        "../../etc",
        "..",
        "",
        "é" * 300,
        "a b",
    ]
    with RunWriter(tmp_path / "run") as run:
        paths = [run.write_table("levels", [make["levels"](checkpoint=x)], LEVELS, part=x) for x in labels]
        decoders = run.write_table("decoders", [make["decoders"]()], DECODERS, part="step00010")
        run.commit({})
    assert len(set(paths)) == len(labels)
    assert {path.parent for path in paths} == {tmp_path / "run" / "levels"}
    assert paths[0].name == "step00010.parquet"
    assert decoders == tmp_path / "run" / "decoders" / "step00010.arrow"
    assert all(path.name.isascii() and not path.name.startswith(".") for path in paths)
    assert open_run(tmp_path / "run").levels["checkpoint"].to_pylist() == labels


def test_a_file_is_written_once(tmp_path, make):
    with RunWriter(tmp_path / "run") as run:
        run.write_table("levels", [make["levels"]()], LEVELS)
        with pytest.raises(ResultsError, match=r"levels\.parquet is written already"):
            run.write_table("levels", [make["levels"]()], LEVELS)
        with pytest.raises(ResultsError, match="no table is called 'level'"):
            run.write_table("level", [make["levels"]()], LEVELS)


def test_only_what_cannot_be_written_is_the_tables_fault(tmp_path, make):
    mine = OSError(errno.EIO, "of what the caller reads")

    def fail(run, error, **broken):
        with run.open_table("levels", LEVELS) as table:
            for name, method in broken.items():
                setattr(table._writer, name, method)
            table.append([make["levels"]()])
            raise error

    with RunWriter(tmp_path / "run") as run:
        with pytest.raises(OSError, match="of what the caller reads") as caught:
            fail(run, mine)
        assert caught.value is mine
        full = raising(OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(ResultsError, match=r"cannot write .*levels\.parquet: No space"):
            fail(run, mine, write_table=full)


def raising(error):
    def fail(*_):
        raise error

    return fail


def test_a_finished_run_is_not_unfinished(tmp_path, write):
    """A kill right behind the manifest leaves the records beside a whole run."""
    directory = write(tmp_path / "run")
    (directory / "units" / "00000").mkdir(parents=True)
    (directory / "units" / "00000" / "00000000.unit").touch()
    (directory / "unfinished.json").write_text("{}")
    assert unfinished(directory) == 0
    (directory / "manifest.json").unlink()
    assert unfinished(directory) == 1


def test_closed_writers_write_nothing(tmp_path, make, write):
    run = RunWriter(tmp_path / "run")
    with pytest.raises(ResultsError, match="not open"):
        run.write_table("levels", [], LEVELS)
    with run:
        run.commit({})
        with pytest.raises(ResultsError, match="not open"):
            run.write_table("levels", [], LEVELS)
        with pytest.raises(ResultsError, match="not open"):
            run.commit({})
    assert open_run(tmp_path / "run").levels.num_rows == 0


@pytest.mark.parametrize("manifest", [{"format": 2}, {"outputs": []}, {"x": float("nan")}, {"x": Path("p")}])
def test_bad_manifests_refused_and_nothing_left(tmp_path, manifest):
    with pytest.raises(ResultsError, match="manifest: "), RunWriter(tmp_path / "run") as run:
        run.commit(manifest)
    assert tree(tmp_path) == {}


# ---- what is in the way


def test_another_run_is_left_alone(tmp_path, write):
    directory = write(tmp_path / "run")
    before = tree(directory)
    with pytest.raises(ResultsError, match="holds another run; choose another --out"), RunWriter(directory):
        pass
    assert tree(directory) == before


@pytest.mark.parametrize("name", ["notes.txt", "levels.parquet", ".hidden"])
def test_other_directories_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ResultsError, match="is not empty and holds no run"), RunWriter(tmp_path):
        pass
    assert tree(tmp_path) == {name: b"mine"}


def test_files_and_dangling_links_are_no_directories(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(ResultsError, match="is not a directory"), RunWriter(tmp_path / name):
            pass
    with (
        pytest.raises(ResultsError, match=r"cannot write to .*Not a directory"),
        RunWriter(tmp_path / "file" / "a"),
    ):
        pass
    assert tree(tmp_path) == {"file": b"mine", "link": None}


def test_directories_that_cannot_be_created(tmp_path):
    with pytest.raises(ResultsError, match="cannot write to /proc/none/run"), RunWriter("/proc/none/run"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directories_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    for path in (tmp_path, tmp_path / "run"):
        with pytest.raises(ResultsError, match="Permission denied"), RunWriter(path):
            pass
    assert tree(tmp_path) == {}


def test_one_writer_at_a_time(tmp_path, make):
    with RunWriter(tmp_path / "run") as run:
        run.write_table("levels", [make["levels"]()], LEVELS)
        with pytest.raises(ResultsError, match="being written by another run"), RunWriter(tmp_path / "run"):
            pass
        run.commit({})
    assert open_run(tmp_path / "run", verify=True).levels.num_rows == 1


def test_a_run_finished_meanwhile_is_left_alone(tmp_path, write, monkeypatch):
    """Another writer finishes between our look at the directory and our lock on it."""
    from rct_ray.results.claim import Claim

    lock = Claim._lock_marker

    def late(self):
        monkeypatch.setattr(Claim, "_lock_marker", lock)
        write(tmp_path / "run")
        lock(self)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Claim, "_lock_marker", late)
    with pytest.raises(ResultsError, match="holds another run"), RunWriter(tmp_path / "run"):
        pass
    assert open_run(tmp_path / "run", verify=True).levels.num_rows == 1


# ---- leaving without commit


def write_some(run, make):
    run.write_table("levels", [make["levels"]()], LEVELS, part="a")
    run.write_table("tensors", [make["tensors"]()], TENSORS)
    run.write_table("decoders", [make["decoders"]()], DECODERS, part="a")


@pytest.mark.parametrize("existing", ["", "run", "run/deep"])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_uncommitted_leaves_the_directory_as_it_was(tmp_path, make, existing, error):
    (tmp_path / existing).mkdir(parents=True, exist_ok=True)
    before = tree(tmp_path)
    expected = pytest.raises(error) if error else contextlib.nullcontext()
    with expected, RunWriter(tmp_path / "run" / "deep") as run:
        write_some(run, make)
        if error:
            raise error
    assert tree(tmp_path) == before


def test_a_strangers_file_survives(tmp_path, make):
    with RunWriter(tmp_path / "run") as run:
        write_some(run, make)
        (tmp_path / "run" / "levels" / "notes.txt").write_text("mine")
    assert tree(tmp_path / "run") == {"levels": None, "levels/notes.txt": b"mine"}


def test_an_error_behind_commit_changes_nothing(tmp_path, make):
    with pytest.raises(KeyboardInterrupt), RunWriter(tmp_path / "run") as run:  # noqa: PT012 - both, in order
        write_some(run, make)
        run.commit({})
        raise KeyboardInterrupt
    assert open_run(tmp_path / "run", verify=True).levels.num_rows == 1
    assert not (tmp_path / "run" / MARKER).exists()


def test_a_refused_table_leaves_the_run_usable(tmp_path, make):
    with RunWriter(tmp_path / "run") as run:
        with pytest.raises(ResultsError, match="null where"):
            run.write_table("levels", [make["levels"](r2=None)], LEVELS)
        run.write_table("levels", [make["levels"]()], LEVELS)
        run.commit({})
    assert open_run(tmp_path / "run").levels.num_rows == 1


def test_a_failed_write_leaves_no_temporary_in_the_run(tmp_path, make, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunWriter(tmp_path / "run") as run:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(ResultsError, match=r"cannot write .*: No space left"):
                run.write_table("levels", [make["levels"]()], LEVELS)
        run.commit({})
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"manifest.json"}


def test_files_appear_whole_and_the_manifest_last(tmp_path, write, monkeypatch):
    appeared = []
    replace = Path.replace

    def watched(self, target):
        assert not target.exists()
        appeared.append((target.name, self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    directory = write(tmp_path / "run")
    assert appeared == [
        (name, (directory / name).read_bytes())
        for name in ("levels.parquet", "tensors.parquet", "shards.parquet", "decoders.arrow", "manifest.json")
    ]


# Children of one process, each stopped at the next thing that it does to its directory (an audit event:
# open, mkdir, scandir, flock, rename, remove), so that every such moment is tried.
FAULTS = """
    import errno, os, signal, sys
    from pathlib import Path
    import pyarrow.parquet
    from conftest import decoder, level
    from rct_ray.results import DECODERS, LEVELS, RunWriter

    base, fault = Path(sys.argv[1]), sys.argv[2]
    left = None

    def stop(event, args):
        global left
        if left is None or not event.startswith(("open", "os.", "fcntl.")):
            return
        if event != "fcntl.flock" and not (args and str(args[0]).startswith(str(base))):
            return
        left -= 1
        if left < 0:
            left = None
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "interrupt":
                raise KeyboardInterrupt
            raise OSError(errno.ENOSPC, "No space left on device")

    sys.addaudithook(stop)
    for n in range(1000):
        if not (child := os.fork()):
            left = n
            try:
                with RunWriter(base / f"{n:03}" / "run") as run:
                    run.write_table("levels", [level()], LEVELS, part="a")
                    run.write_table("decoders", [decoder()], DECODERS)
                    run.commit({})
            except KeyboardInterrupt:
                os._exit(3)
            except ValueError as error:
                os.write(1, f"{error}\\n".encode())
                os._exit(4)
            # Not reached: every event is behind us.
            os._exit(0 if left is not None else 5)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(1, f"{n} {status}\\n".encode())
        if status == 0:
            break
"""


def stopped_everywhere(base, fault):
    done = run_python(FAULTS, base, fault)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    statuses = [int(line.split()[1]) for line in lines if line[0].isdigit()]
    assert statuses.pop() == 0
    assert len(statuses) > 15
    return statuses, [line for line in lines if not line[0].isdigit()]


def test_killed_at_any_moment(tmp_path, write):
    statuses, _ = stopped_everywhere(tmp_path, "kill")
    assert set(statuses) == {-signal.SIGKILL}
    finished = 0
    for n in range(len(statuses)):
        directory = tmp_path / f"{n:03}" / "run"
        if (directory / "manifest.json").exists():
            finished += 1
            assert open_run(directory, verify=True).levels.num_rows == 1
            continue
        with pytest.raises(ResultsError, match=r"no (manifest\.json in|such directory)"):
            open_run(directory)
        assert open_run(write(directory), verify=True).levels.num_rows == 1
        assert not (directory / MARKER).exists()
        assert not (directory / "levels").exists()
    assert 0 < finished < len(statuses) / 2


def test_interrupted_at_any_moment(tmp_path):
    statuses, _ = stopped_everywhere(tmp_path, "interrupt")
    assert set(statuses) == {3}
    for n in range(len(statuses)):
        directory = tmp_path / f"{n:03}"
        if directory.exists():
            assert open_run(directory / "run", verify=True).levels.num_rows == 1
            assert not (directory / "run" / MARKER).exists()


def test_disk_errors_at_any_moment(tmp_path):
    statuses, messages = stopped_everywhere(tmp_path, "full")
    # 5: an error that is none, in tidying up behind the manifest.
    assert set(statuses) <= {4, 5}
    assert statuses.count(5) <= 2
    assert len(messages) == statuses.count(4)
    assert all("cannot write" in line and str(tmp_path) in line for line in messages)
    for n, status in enumerate(statuses):
        if status == 4:
            assert not (tmp_path / f"{n:03}").exists()
        else:
            assert open_run(tmp_path / f"{n:03}" / "run", verify=True).levels.num_rows == 1


@pytest.mark.parametrize("table", ["levels", "decoders"])
def test_disk_full(tmp_path, table):
    """A real limit on the size of files, hit by a real write."""
    done = run_python(
        """
        import resource, sys
        import numpy as np
        from conftest import decoder, level
        from rct_ray.results import DECODERS, LEVELS, ResultsError, RunWriter

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        rng = np.random.default_rng(0)
        try:
            with RunWriter(sys.argv[1]) as run:
                run.write_table("levels", [level()], LEVELS, part="small")
                if sys.argv[2] == "levels":
                    rows = [level(sse=x, r2=x, sst=x) for x in rng.random(20_000)]
                    run.write_table("levels", rows, LEVELS)
                else:
                    run.write_table("decoders", [decoder(rng.random((200, 200)))], DECODERS)
                run.commit({})
        except ResultsError as error:
            print(error)
        """,
        tmp_path / "run",
        table,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot write {tmp_path}/run/{table}.")
    assert "File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert tree(tmp_path) == {}


def test_leftovers_of_a_killed_run_beside_a_users_files(tmp_path):
    (tmp_path / MARKER).touch()
    (tmp_path / "levels").mkdir()
    for name in ("levels/a.parquet.tmp", "levels/notes.txt", "tensors.parquet"):
        (tmp_path / name).write_text("x")
    before = tree(tmp_path)
    with pytest.raises(ResultsError, match=r"unfinished run and other files \(levels/notes\.txt\)"):
        RunWriter(tmp_path).__enter__()
    assert tree(tmp_path) == before


def test_links_among_leftovers_are_not_followed(tmp_path, write):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.parquet").write_text("mine")
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / MARKER).touch()
    (directory / "levels").symlink_to(outside)
    with pytest.raises(ResultsError, match="other files"):
        write(directory)
    assert (outside / "a.parquet").read_text() == "mine"


def test_neither_pandas_nor_datasets_are_imported(tmp_path):
    """They take longer to import than a run may take."""
    done = run_python(
        """
        import sys
        from conftest import decoder, level, shard, tensor
        from rct_ray.results import TABLES, RunWriter, open_run
        assert "pyarrow.parquet" not in sys.modules
        with RunWriter(sys.argv[1]) as run:
            for name, row in zip(TABLES, (level, tensor, shard, decoder)):
                run.write_table(name, [row()], TABLES[name])
            run.commit({})
        run = open_run(sys.argv[1], verify=True)
        print(run, run.levels_of("tensor").to_pylist(), run.tensors, run.shards)
        print(run.decoder("tensor", "conv.weight", 2, "components"))
        assert not {"pandas", "pyarrow.dataset", "ray"} & set(sys.modules)
        """,
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    assert set(TABLES) == {"levels", "tensors", "shards", "decoders"}
