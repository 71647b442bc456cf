"""The Dockerfile, read as text: there is no daemon in a test to build it."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cluster" / "docker" / "Dockerfile").read_text()


def instructions():
    """Instruction and argument of every line, continued ones joined, without comments."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages():
    """Base of every stage, by its name, in order."""
    found = [argument.split(" AS ") for name, argument in instructions() if name == "FROM"]
    return {stage: base for base, stage in found}


def test_every_instruction_is_one():
    known = {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}
    assert {name for name, *_ in instructions()} <= known
    assert all(len(line) == 2 for line in instructions())


def test_variants_are_stages_of_known_bases():
    bases = stages()
    assert set(bases) == {"base-cpu", "base-cuda", "build", "final"}
    assert list(bases)[-1] == "final"
    assert bases["build"] == bases["final"] == "base-${VARIANT}"
    # One Ubuntu, hence one Python, in both: nodes of a cluster must agree.
    assert bases["base-cpu"].startswith("ubuntu:${UBUNTU_VERSION}")
    assert bases["base-cuda"].endswith("ubuntu${UBUNTU_VERSION}")


def test_no_base_is_the_latest():
    defaults = dict(
        argument.split("=", 1) for name, argument in instructions() if name == "ARG" and "=" in argument
    )
    for base in stages().values():
        filled = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], base)
        assert "latest" not in filled
        assert "$" not in filled
        assert ":" in filled or filled in stages()
    assert {"VARIANT", "RAY_VERSION", "UBUNTU_VERSION", "CUDA_VERSION", "USER_ID"} <= set(defaults)
    assert defaults["VARIANT"] == "cpu"
    for name in ("RAY_VERSION", "UBUNTU_VERSION", "CUDA_VERSION"):
        assert re.fullmatch(r"\d+(\.\d+)+", defaults[name])


def test_it_does_not_run_as_root():
    after = [name for name, *_ in instructions()]
    users = [argument for name, argument in instructions() if name == "USER"]
    assert users == ["${USER_ID}"]
    assert "ARG USER_ID=1000\n" in TEXT
    # Nothing is installed, copied or run after it.
    assert not set(after[after.index("USER") :]) & {"RUN", "COPY"}


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [argument.split("=")[1] for name, argument in instructions() if "RCT_EXTRAS=" in argument]
    assert len(named) == 2
    assert {extra for line in named for extra in line.split(",")} <= set(extras)
    assert all("cluster" in line for line in named)


def test_what_is_copied_exists_and_is_all_that_the_build_needs():
    sources = [
        source
        for name, argument in instructions()
        if name == "COPY" and "--from" not in argument
        for source in argument.split()[:-1]
    ]
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "rct_ray"} == set(sources)


@pytest.mark.parametrize("tool", ["wget", "rsync", "openssh-client", "procps"])
def test_tools_that_kuberay_and_ray_up_call_are_there(tool):
    final = TEXT[TEXT.index("AS final") :]
    assert re.search(rf"\b{tool}\b", final)


def test_lists_of_packages_are_not_left_in_layers():
    for name, argument in instructions():
        if name == "RUN" and "apt-get install" in argument:
            assert "--no-install-recommends" in argument
            assert "rm -rf /var/lib/apt/lists/*" in argument
        if name == "RUN" and "pip install" in argument:
            assert "--no-cache-dir" in argument
