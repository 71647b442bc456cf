"""Which checkpoints some arguments mean: files, directories, globs, lists, all mixed, each checkpoint once."""

from pathlib import Path

import pytest

from rct_ray import CheckpointError, open_checkpoint
from rct_ray.checkpoint import find_checkpoints

from .conftest import write_step


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_files_as_they_are_given(here):
    touch("b.safetensors", "a.npz")
    assert find_checkpoints(["b.safetensors", Path("a.npz")]) == ["b.safetensors", "a.npz"]


def test_what_does_not_exist_is_passed_on(here):
    assert find_checkpoints(["nowhere/a.safetensors", "s3://bucket/a"]) == [
        "nowhere/a.safetensors",
        "s3://bucket/a",
    ]


def test_globs(here):
    touch(
        "runs/step20.safetensors", "runs/step3.safetensors", "runs/deep/er/step9.safetensors", "runs/notes.md"
    )
    assert find_checkpoints(["runs/step*.safetensors"]) == [
        "runs/step20.safetensors",
        "runs/step3.safetensors",
    ]
    assert find_checkpoints(["runs/step?.safetensors"]) == ["runs/step3.safetensors"]
    assert find_checkpoints([str(here / "runs/step[0-3]*.safetensors")])[1] == str(
        here / "runs/step3.safetensors"
    )
    assert "runs/deep/er/step9.safetensors" in find_checkpoints(["runs/**/*.safetensors"])
    with pytest.raises(CheckpointError, match=r"^nothing meets runs/epoch\*"):
        find_checkpoints(["runs/step3.safetensors", "runs/epoch*"])


def test_a_name_with_brackets_that_exists_is_no_glob(here):
    touch("a[1].safetensors", "a1.safetensors", "odd*/step1.safetensors")
    assert find_checkpoints(["a[1].safetensors"]) == ["a[1].safetensors"]
    assert find_checkpoints(["odd*"]) == ["odd*"]


@pytest.mark.parametrize(
    "names",
    [
        ["model.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ["step100-00001-of-00002.safetensors", "step100-00002-of-00002.safetensors"],
        ["step100.safetensors", "step200.safetensors", "x.safetensors.index.json"],
        ["step100.safetensors", "final.safetensors"],
        ["step1.safetensors", "a.npz", "b.npz"],
        ["model.safetensors", "checkpoint-500/model.safetensors", "checkpoint-600/model.safetensors"],
        ["notes.md"],
        [],
    ],
    ids=str,
)
def test_directories_that_are_one_checkpoint(here, names):
    Path("run").mkdir()
    touch(*(f"run/{name}" for name in names))
    assert find_checkpoints(["run"]) == ["run"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (
            ["step100.safetensors", "step20.safetensors", ".step7.safetensors", "log.txt"],
            ["step100.safetensors", "step20.safetensors"],
        ),
        (["checkpoint-1.npz", "checkpoint-2.npz"], ["checkpoint-1.npz", "checkpoint-2.npz"]),
        (
            ["global_step10/m.safetensors", "global_step9/m.safetensors", "logs/a.txt"],
            ["global_step10", "global_step9"],
        ),
        (["iter_0001400/mp_rank_00.pt", "iter_0001500/m.npz"], ["iter_0001400", "iter_0001500"]),
        (["alpha/m.safetensors", "beta/m.safetensors.index.json"], ["alpha", "beta"]),
    ],
    ids=str,
)
def test_directories_that_are_several(here, names, found):
    touch(*(f"run/{name}" for name in names))
    assert find_checkpoints(["run"]) == [f"run/{name}" for name in found]


def test_lists(here):
    touch("runs/step1.safetensors", "runs/step2.safetensors", "other/model.safetensors")
    text = "# of a training run\n\nruns/step*.safetensors\r\n  other \nruns\n"
    Path("those.txt").write_text(text)
    Path("no-suffix").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = ["runs/step1.safetensors", "runs/step2.safetensors", "other"]
    assert find_checkpoints(["those.txt"]) == found
    assert find_checkpoints(["@those.txt"]) == found
    assert find_checkpoints(["@no-suffix"]) == found
    assert find_checkpoints(["other", "@no-suffix"]) == ["other", *found[:2]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"# nothing\n\n", "no path in it"),
        (b"runs\n\xff\xfe\n", "not UTF-8"),
        (b"@other\n", "names the list @other"),
        (b"other.txt\n", r"names the list other\.txt"),
        (b"runs/none*\n", r"^@those: nothing meets runs/none\*"),
        (None, "no such file"),
    ],
    ids=str,
)
def test_lists_that_are_refused(here, content, said):
    if content is not None:
        Path("those").write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as refusal:
        find_checkpoints(["@those"])
    assert "those" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_file_whose_name_begins_with_the_mark(here):
    touch("@home.safetensors")
    assert find_checkpoints(["@home.safetensors"]) == ["@home.safetensors"]


def test_each_checkpoint_once(here):
    touch("runs/step1.safetensors", "runs/step2.safetensors")
    # It sorts before what it leads to, which has the better name.
    Path("runs/latest.safetensors").symlink_to("step2.safetensors")
    found = find_checkpoints(
        ["runs/*.safetensors", "runs/step1.safetensors", "./runs/../runs/step1.safetensors"]
    )
    assert sorted(found) == ["runs/step1.safetensors", "runs/step2.safetensors"]
    assert find_checkpoints(["runs/latest.safetensors"]) == ["runs/latest.safetensors"]
    touch("model/model.safetensors.index.json")
    assert find_checkpoints(["model/model.safetensors.index.json", "model"]) == [
        "model/model.safetensors.index.json"
    ]


@pytest.mark.parametrize(
    ("path", "metadata", "step"),
    [
        ("step01400.safetensors", None, 1400),
        ("checkpoint-1400.safetensors", None, 1400),
        ("global_step1400.safetensors", None, 1400),
        ("iter_0001400.safetensors", None, 1400),
        ("step7.safetensors", {"step": "1400"}, 1400),
        ("step7.safetensors", {"step": "many"}, 7),
        ("checkpoint-1400/model.safetensors", None, 1400),
        ("global_step1400/step3.safetensors", None, 3),
        ("run-of-step1400/model.safetensors", None, None),
        (f"step{'9' * 60}.safetensors", None, None),
        (f"step{'0' * 60}12.safetensors", None, 12),
        ("model.safetensors", None, None),
    ],
    ids=str,
)
def test_steps(here, path, metadata, step):
    assert open_checkpoint(write_step(here / path, 1, metadata)).step == step
