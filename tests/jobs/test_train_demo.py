"""The demo trainer: its tokens and its refusals without torch, its checkpoints with it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

JOBS = Path(__file__).parents[2] / "jobs"
SMALL = {
    "blocks": 1,
    "width": 32,
    "heads": 4,
    "context": 32,
    "vocabulary": 300,
    "steps": 30,
    "save": "0,30",
    "lr": 0.01,
    "text-limit": 60_000,
    "device": "cpu",
}


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.syspath_prepend(str(JOBS))


def call(out: Path, env: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess[str]:
    args = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, str(JOBS / "train_demo.py"), "--out", str(out), *args]
    environment = {"PATH": "", "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def read(path: Path) -> tuple[dict[str, str], dict[str, dict], bytes]:
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    return header.pop("__metadata__"), header, raw[start:]


def expected_shapes(blocks: int, width: int, context: int, vocabulary: int) -> dict[str, list[int]]:
    shapes = {
        "tok_emb.weight": [vocabulary, width],
        "head.weight": [vocabulary, width],
        "pos_emb.weight": [context, width],
        "ln_f.weight": [width],
        "ln_f.bias": [width],
    }
    for n in range(blocks):
        shapes |= {f"blocks.{n}.ln_{i}.{kind}": [width] for i in (1, 2) for kind in ("weight", "bias")}
        for name, rows, columns in (
            ("attn.c_attn", 3 * width, width),
            ("attn.c_proj", width, width),
            ("mlp.0", 4 * width, width),
            ("mlp.2", width, 4 * width),
        ):
            shapes |= {f"blocks.{n}.{name}.weight": [rows, columns], f"blocks.{n}.{name}.bias": [rows]}
    return shapes


# --- tokens -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs():
    sys.path.insert(0, str(JOBS))
    try:
        from _bytepair import BytePairs, library_texts
    finally:
        sys.path.remove(str(JOBS))
    return BytePairs.train(library_texts(100_000, seed=0), 600)


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=())) | st.text("ab _=(\n\t 1é\ud800", max_size=200))
def test_tokens_round_trip_any_text(pairs, text):
    tokens = pairs.encode(text)
    assert pairs.decode(tokens) == text
    assert all(0 <= t < 600 for t in tokens)


def test_tokens_shorten_source_text(pairs):
    text = (JOBS / "_bytepair.py").read_text(encoding="utf-8")
    assert pairs.decode(pairs.encode(text)) == text
    assert len(pairs.pieces) == 600
    assert len(set(pairs.pieces)) == 600
    assert len(pairs.encode(text)) < 0.6 * len(text.encode())


def test_a_pair_is_joined_from_the_left_and_by_count(jobs):
    from _bytepair import BytePairs

    trained = BytePairs.train(["aaaa aaaa bc"], 258)
    assert [trained.pieces[t] for t in (256, 257)] == [b"aa", b"aaaa"]
    assert list(trained.encode("aaaaa")) == [257, ord("a")]


def test_incremental_counts_match_counting_again(jobs):
    from collections import Counter
    from itertools import pairwise

    from _bytepair import WORD, BytePairs, _join, library_texts

    texts = list(library_texts(20_000, seed=1))
    counts = Counter(word for text in texts for word in WORD.findall(text))
    words = {word: list(word.encode()) for word in counts}
    merges = []
    for new in range(256, 336):
        total = Counter()
        for word, tokens in words.items():
            for pair in pairwise(tokens):
                total[pair] += counts[word]
        merges.append(min(total, key=lambda pair: (-total[pair], pair)))
        words = {word: _join(tokens, merges[-1], new) for word, tokens in words.items()}
    assert BytePairs.train(texts, 336).merges == merges


def test_a_short_text_gives_fewer_tokens(jobs):
    from _bytepair import BytePairs

    assert len(BytePairs.train(["ab"], 1000).pieces) == 257
    assert len(BytePairs.train([], 1000).pieces) == 256


def test_the_text_is_cut_at_its_limit_and_seeded(jobs):
    from _bytepair import library_texts

    texts = list(library_texts(50_000, seed=3))
    assert sum(map(len, texts)) == 50_000
    assert texts == list(library_texts(50_000, seed=3))
    assert texts != list(library_texts(50_000, seed=4))


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heads": 3}, "--heads 3 does not divide --width 256"),
        ({"vocabulary": 256}, "--vocabulary must be at least 257"),
        ({"steps": 10, "save": "0,11"}, "--save 11 is outside the steps 0 to 10"),
        ({"save": "-1"}, "--save -1 is outside"),
        ({"save": "0,x"}, "--save takes whole numbers"),
        ({"save": ","}, "--save names no step"),
        ({"blocks": 0}, "--blocks must be at least 1"),
        ({"text_limit": 0}, "--text-limit must be at least 1"),
        ({"lr": "nan"}, "--lr must be a positive number"),
        ({"seed": -1}, "--seed must be"),
        ({"dtype": "f16"}, "--dtype must be one of bf16, f32"),
        ({"device": "tpu"}, "--device must be one of"),
        ({"preset": "huge"}, "--preset must be one of photonic, tiny"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(tmp_path, options, says):
    done = call(tmp_path / "out", **options)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_missing_torch_is_one_line_and_exit_2(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    done = call(tmp_path / "out", env={"PYTHONPATH": str(tmp_path)}, preset="tiny")
    assert done.returncode == 2
    assert done.stderr == "training needs torch: pip install '.[torch]'\n"
    assert not (tmp_path / "out").exists()


def test_options_go_over_the_preset(jobs):
    from train_demo import make_recipe

    tiny = make_recipe("tiny", {"steps": None, "save": None})
    assert (tiny.blocks, tiny.width, tiny.context, tiny.vocabulary, tiny.seed) == (1, 256, 256, 1024, 3)
    assert (tiny.steps, tiny.save) == (2500, (0, 2500))
    assert make_recipe("tiny", {"steps": 300}).save == (0, 300)
    assert make_recipe("photonic", {"steps": 200}).save == (0, 100, 200)
    assert make_recipe("photonic", {"save": "400, 0,400"}).save == (0, 400)


# --- training ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("torch", reason="training needs torch")
    out = tmp_path_factory.mktemp("trained")
    done = call(out, **SMALL)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_the_files_are_the_chosen_steps(trained):
    out, said = trained
    assert sorted(path.name for path in out.iterdir()) == ["step00000.safetensors", "step00030.safetensors"]
    assert "step 30/30  loss " in said
    assert " tokens/s" in said


def test_names_shapes_and_types(trained):
    out, _ = trained
    for step in (0, 30):
        metadata, header, data = read(out / f"step{step:05d}.safetensors")
        assert {name: entry["shape"] for name, entry in header.items()} == expected_shapes(1, 32, 32, 300)
        assert {entry["dtype"] for entry in header.values()} == {"BF16"}
        assert list(header) == sorted(header)
        assert metadata.keys() == {"format", "step", "val_loss"}
        assert (metadata["format"], metadata["step"]) == ("pt", str(step))
        spans = [entry["data_offsets"] for entry in header.values()]
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
        assert spans[-1][1] == len(data)
        assert all(
            end - start == 2 * math.prod(e["shape"])
            for e, (start, end) in zip(header.values(), spans, strict=True)
        )


def test_the_head_is_the_embedding(trained):
    out, _ = trained
    for step in (0, 30):
        _, header, data = read(out / f"step{step:05d}.safetensors")
        head, embedding = (slice(*header[name]["data_offsets"]) for name in ("head.weight", "tok_emb.weight"))
        assert data[head] == data[embedding]


def test_the_loss_starts_at_chance_and_falls(trained):
    out, _ = trained
    before, after = (float(read(out / f"step{s:05d}.safetensors")[0]["val_loss"]) for s in (0, 30))
    assert before == pytest.approx(math.log(300), abs=0.1)
    assert after < before - 0.5


def test_the_same_seed_gives_the_same_bytes(trained, tmp_path):
    out, _ = trained
    assert call(tmp_path / "again", **SMALL).returncode == 0
    assert call(tmp_path / "other", **SMALL, seed=8).returncode == 0
    for step in (0, 30):
        name = f"step{step:05d}.safetensors"
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (out / name).read_bytes()


def test_safetensors_reads_the_files(trained):
    load_file = pytest.importorskip("safetensors.torch", reason="reads with safetensors").load_file
    out, _ = trained
    weights = load_file(out / "step00030.safetensors")
    assert {name: list(w.shape) for name, w in weights.items()} == expected_shapes(1, 32, 32, 300)
    assert all(bool(w.isfinite().all()) for w in weights.values())


def test_f32_and_several_blocks(tmp_path):
    torch = pytest.importorskip("torch", reason="training needs torch")
    load_file = pytest.importorskip("safetensors.torch", reason="reads with safetensors").load_file
    for init, scale in (("residual", 0.5), ("plain", 1.0)):
        options = SMALL | {"blocks": 2, "steps": 1, "save": "0", "dtype": "f32", "init": init}
        assert call(tmp_path / init, **options).returncode == 0
        weights = load_file(tmp_path / init / "step00000.safetensors")
        assert {name: list(w.shape) for name, w in weights.items()} == expected_shapes(2, 32, 32, 300)
        assert {w.dtype for w in weights.values()} == {torch.float32}
        assert float(weights["blocks.1.mlp.2.weight"].std()) == pytest.approx(0.02 * scale, rel=0.05)
        assert float(weights["blocks.1.mlp.0.weight"].std()) == pytest.approx(0.02, rel=0.05)
        assert all(bool((w == 1).all()) for name, w in weights.items() if "ln_" in name and "weight" in name)


def test_the_model_sees_only_what_came_before(jobs):
    torch = pytest.importorskip("torch", reason="training needs torch")
    from _gpt import init_weights, logits
    from _recipe import Recipe

    recipe = Recipe(blocks=2, width=32, heads=4, context=16, vocabulary=300)
    weights = init_weights(recipe, "cpu")
    tokens = torch.arange(16)[None]
    changed = tokens.clone()
    changed[0, 10] = 299
    a, b = logits(weights, tokens, recipe), logits(weights, changed, recipe)
    assert torch.equal(a[:, :10], b[:, :10])
    assert not torch.allclose(a[:, 10:], b[:, 10:])


def test_the_learning_rate_warms_up_and_falls_to_a_tenth(jobs):
    pytest.importorskip("torch", reason="training needs torch")
    from _recipe import Recipe
    from _training import learning_rate

    rates = [learning_rate(step, Recipe()) for step in range(1401)]
    assert rates[0] == pytest.approx(3e-6)
    assert max(rates) == pytest.approx(3e-4)
    assert rates[-1] == pytest.approx(3e-5)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert learning_rate(0, Recipe(steps=1, save=(0,))) > 0


def test_too_little_text_and_a_folder_that_cannot_be_made(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    short = call(tmp_path / "out", **(SMALL | {"text-limit": 500}))
    assert (short.returncode, short.stderr.count("\n")) == (2, 1)
    assert "too few for --context 32" in short.stderr
    (tmp_path / "file").write_text("")
    blocked = call(tmp_path / "file" / "out", **SMALL)
    assert (blocked.returncode, blocked.stderr.count("\n")) == (2, 1)


def test_a_failed_write_leaves_the_old_file(jobs, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="training needs torch")
    from _training import save

    path = tmp_path / "step00000.safetensors"
    path.write_bytes(b"old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, {"tok_emb.weight": torch.ones(2, 2)}, {"step": "0"}, "bf16")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"
