"""The house: which room may import which, and what an import brings in."""

import ast
from pathlib import Path

import pytest

import rct_ray

PACKAGE = Path(rct_ray.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Rooms, and what they may import of ours beside themselves.
ROOMS = {
    "transform": set(),
    "checkpoint": set(),
    "engine": {"transform", "checkpoint"},
    "results": {"transform"},
    "rebuild": {"transform", "checkpoint", "results"},
    "report": {"results"},
    "submit": set(),
}


def imports(path):
    """Every module that a file names in an import, wherever in it; relative ones in full."""
    package = ("rct_ray", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def ours(path):
    return {name.split(".")[1] for name in imports(path) if name.startswith("rct_ray.")}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    modules = sorted((PACKAGE / room).glob("**/*.py"))
    assert modules
    for path in modules:
        strangers = ours(path) - ROOMS[room] - {room}
        assert not strangers, f"{path.relative_to(PACKAGE)} imports {strangers}"


def test_every_room_is_known():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(ROOMS)


def test_rooms_do_without_what_is_not_theirs():
    for path in MODULES:
        names = {name.split(".")[0] for name in imports(path)}
        room = path.relative_to(PACKAGE).parts[0]
        assert not names & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}, path
        if room == "transform":
            assert not names & {"ray", "pyarrow", "io", "os", "pathlib"}, path
        if room not in {"engine", "submit"}:
            assert "ray" not in names, path


def test_modules_are_short():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


HEAVY = ["ray", "sklearn", "pyarrow", "pandas", "torch", "cupy", "scipy", "numpy", "rich", "polars", "duckdb"]
REPORT = f"import json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"


def test_importing_the_package_brings_in_nothing_heavy(python):
    assert python(f"import rct_ray; {REPORT}") == []


def test_help_and_version_bring_in_nothing_heavy(python):
    for argument in ("--help", "--version"):
        code = f"from rct_ray.cli import _status; assert _status(['{argument}']) == 0; {REPORT}"
        assert set(python(code)) <= {"rich"}


def test_a_run_in_process_does_without_ray_and_scikit_learn(python, tiny, tmp_path):
    code = "import sys; from rct_ray.cli import _status; assert _status(sys.argv[1:]) == 0; "
    loaded = python(code + REPORT, "run", tiny, "--out", tmp_path / "out", "--preset", "paper67")
    assert set(loaded) <= {"numpy", "pyarrow", "rich"}
    loaded = python(code + REPORT, "show", tmp_path / "out")
    assert set(loaded) <= {"numpy", "pyarrow", "rich"}
    assert set(python(code + REPORT, "inspect", tiny)) <= {"numpy", "rich"}


def test_threads_of_a_run_use_one_blas_thread_each():
    import threadpoolctl

    from rct_ray.api import one_blas_thread

    with one_blas_thread():
        pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        assert {pool["num_threads"] for pool in pools} == {1}
