"""Directories and indexes: what belongs to the checkpoint, and which paths are refused."""

import json
import os
import pickle
import socket
from pathlib import Path

import numpy as np
import pytest

from rct_ray.checkpoint import CheckpointError, open_checkpoint

from .build import matrix, read_all, save, save_index, weights, write_index

A, B = {"a": weights(3, 4), "z": weights(2, 4, seed=1)}, {"b": weights(5, 4, seed=2)}
SHARDS = {"m-00002-of-2.safetensors": A, "m-00001-of-2.safetensors": B}


def equal(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("by", ["directory", "index", "string", "relative"])
def test_an_index(tmp_path, by, monkeypatch):
    directory = tmp_path / "step500"
    directory.mkdir()
    index = save_index(directory, SHARDS)
    save(directory / "consolidated.safetensors", A | B)
    monkeypatch.chdir(directory)
    path = {"directory": directory, "index": index, "string": f"{directory}/", "relative": "."}[by]
    checkpoint = open_checkpoint(path)
    assert (checkpoint.name, checkpoint.step, checkpoint.path) == ("step500", 500, os.fspath(path))
    assert [Path(file.path).name for file in checkpoint.files] == sorted(SHARDS)
    assert all(Path(file.path).is_absolute() for file in checkpoint.files)
    equal(read_all(path), B | A)


def test_tensors_that_the_index_does_not_list_are_there(tmp_path):
    save(tmp_path / "m.safetensors", A | B)
    write_index(tmp_path, {"a": "m.safetensors"})
    equal(read_all(tmp_path), A | B)


def test_metadata_of_index_and_shards(tmp_path):
    save(tmp_path / "m1.safetensors", A, step="3", format="pt")
    save(tmp_path / "m2.safetensors", B, step="4", format="pt")
    index = write_index(tmp_path, {"a": "m1.safetensors", "b": "m2.safetensors"})
    checkpoint = open_checkpoint(index)
    assert checkpoint.metadata == {"total_size": "1", "step": "3", "format": "pt"}
    assert checkpoint.step == 3


def test_shards_without_an_index(tmp_path):
    save(tmp_path / "2.safetensors", A)
    save(tmp_path / "1.safetensors", B)
    np.save(tmp_path / "other.npy", weights(2, 2))
    (tmp_path / "._1.safetensors").write_bytes(b"left by a file manager")
    (tmp_path / "config.json").write_text("{}")
    equal(read_all(tmp_path), B | A)


def test_npz_then_npy_files(tmp_path):
    np.save(tmp_path / "y.npy", A["a"])
    np.save(tmp_path / "x.npy", B["b"])
    equal(read_all(tmp_path), {"x": B["b"], "y": A["a"]})
    np.savez(tmp_path / "2.npz", **A)
    np.savez_compressed(tmp_path / "1.npz", **B)
    equal(read_all(tmp_path), B | A)


def test_upper_case_suffix(tmp_path):
    save(tmp_path / "W.SAFETENSORS", A)
    equal(read_all(tmp_path / "W.SAFETENSORS"), A)
    equal(read_all(tmp_path), A)


@pytest.mark.parametrize("subfolder", ["", "unet"])
@pytest.mark.parametrize("indexed", [True, False])
def test_hugging_face_cache(tmp_path, subfolder, indexed):
    snapshot = tmp_path / "models--x" / "snapshots" / "abc" / subfolder
    blobs = tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    up = "../../../blobs" if subfolder else "../../blobs"
    save_index(blobs, SHARDS)
    if not indexed:
        (blobs / "model.safetensors.index.json").unlink()
    for number, file in enumerate(sorted(blobs.iterdir())):
        file.rename(blobs / f"{number:064x}")
        (snapshot / file.name).symlink_to(f"{up}/{number:064x}")
    equal(read_all(snapshot), B | A)


def test_links_that_stay_inside_and_a_linked_directory(tmp_path):
    inside = tmp_path / "real"
    inside.mkdir()
    save(inside / "data", A)
    (inside / "w.safetensors").symlink_to("data")
    equal(read_all(inside), A)
    (tmp_path / "link").symlink_to("real")
    equal(read_all(tmp_path / "link"), A)
    assert open_checkpoint(tmp_path / "link").name == "link"
    (tmp_path / "w.safetensors").symlink_to("real/data")
    equal(read_all(tmp_path / "w.safetensors"), A)


def test_one_tensor_listed_in_an_index_and_read(tmp_path):
    save_index(tmp_path, {"m.safetensors": B})
    (entry,) = open_checkpoint(tmp_path).tensors
    np.testing.assert_array_equal(matrix(entry), B["b"])


# --- what is refused: each case builds its input in a directory and returns the path to open and the fault.


def case_no_such_file(d):
    return d / "none.safetensors", "no such file or directory"


def case_no_such_directory(d):
    return d / "none", "no such file or directory"


def case_null_byte(d):
    return f"{d}/a\0b", "embedded null byte"


def case_name_too_long(d):
    return d / ("x" * 300 + ".npy"), "file name too long"


def case_link_loop(d):
    (d / "w.npy").symlink_to("w.npy")
    return d / "w.npy", "too many levels of symbolic links"


def case_file_as_directory(d):
    save(d / "w.safetensors", A)
    return d / "w.safetensors" / "x", "not a directory"


def case_fifo(d):
    os.mkfifo(d / "w.safetensors")
    return d / "w.safetensors", "not a regular file"


def case_fifo_in_directory(d):
    os.mkfifo(d / "w.npz")
    return d, "w.npz: not a regular file"


def case_device(d):
    (d / "w.npy").symlink_to("/dev/zero")
    return d / "w.npy", "not a regular file"


def case_socket(d):
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.fspath(d / "w.npy"))
    server.close()
    return d / "w.npy", "no such device or address"


def case_directory_named_like_a_shard(d):
    (d / "w.safetensors").mkdir()
    return d, "not a regular file"


def case_empty_directory(d):
    return d, "no checkpoint in directory"


def case_directory_of_pickles(d):
    (d / "pytorch_model.bin").write_bytes(b"x")
    return d, "pytorch_model.bin: no zip file of PyTorch"


def case_empty_npy(d):
    (d / "w.npy").touch()
    return d / "w.npy", "empty file"


def case_empty_npz_in_directory(d):
    (d / "w.npz").touch()
    return d, "w.npz: empty file"


def unknown(suffix, fault):
    def case(d):
        path = d / f"w{suffix}"
        path.write_bytes(pickle.dumps({}))
        return path, fault

    return case


def case_two_indexes(d):
    save_index(d, SHARDS)
    write_index(d, {"a": "x.safetensors"}, "other.safetensors.index.json")
    return d, "2 indexes ('model.safetensors.index.json', 'other.safetensors.index.json')"


def index_text(text, fault):
    def case(d):
        (d / "model.safetensors.index.json").write_bytes(text)
        return d, fault

    return case


def mapped(weight_map, fault):
    def case(d):
        save(d / "m.safetensors", A)
        write_index(d, weight_map)
        return d / "model.safetensors.index.json", fault

    return case


def mapped_to(shard):
    return mapped({"a": shard}, "is not the plain name of a .safetensors file")


def case_link_outside(d):
    save(d / "secret.safetensors", A)
    (d / "model").mkdir()
    (d / "model" / "m.safetensors").symlink_to("../secret.safetensors")
    return d / "model", "m.safetensors: link to"


def case_indexed_link_outside(d):
    path, fault = case_link_outside(d)
    write_index(path, {"a": "m.safetensors"})
    return path, fault


def case_index_is_a_link_outside(d):
    (d / "model").mkdir()
    save_index(d, SHARDS)
    (d / "model" / "model.safetensors.index.json").symlink_to("../model.safetensors.index.json")
    return d / "model", "model.safetensors.index.json: link to"


def case_link_to_a_neighbour_with_the_same_prefix(d):
    (d / "model").mkdir()
    (d / "model2").mkdir()
    save(d / "model2" / "m.safetensors", A)
    (d / "model" / "m.safetensors").symlink_to("../model2/m.safetensors")
    return d / "model", "outside its directory"


def case_cache_link_past_the_blobs(d):
    snapshot = d / "models--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    save(d / "models--x" / "secret", A)
    (snapshot / "m.safetensors").symlink_to("../../secret")
    return snapshot, "outside its directory"


def case_blobs_without_snapshots(d):
    (d / "x" / "y").mkdir(parents=True)
    (d / "blobs").mkdir()
    save(d / "blobs" / "0", A)
    (d / "x" / "y" / "m.safetensors").symlink_to("../../blobs/0")
    return d / "x" / "y", "outside its directory"


def case_broken_link(d):
    (d / "m.safetensors").symlink_to("gone")
    return d, "no such file or directory"


def case_looping_link_in_directory(d):
    (d / "m.safetensors").symlink_to("m.safetensors")
    return d, "m.safetensors"


def case_same_tensor_in_two_files(d):
    save(d / "1.safetensors", A)
    save(d / "2.safetensors", A)
    return d, "tensor 'a' is both in '1.safetensors' and in '2.safetensors'"


def case_same_tensor_in_two_shards(d):
    save(d / "1.safetensors", A)
    save(d / "2.safetensors", A | B)
    write_index(d, {"a": "1.safetensors", "b": "2.safetensors"})
    return d, "tensor 'a' is both in"


def case_one_bad_shard(d):
    save(d / "1.safetensors", A)
    (d / "2.safetensors").write_bytes(bytes(9))
    return d, "2.safetensors: header does not begin with '{'"


def case_name_with_a_line_end(d):
    (d / "a\n\x1b[31m.bin").write_bytes(b"x")
    return d / "a\n\x1b[31m.bin", "no zip file of PyTorch"


BARE = "no zip file of PyTorch: only those are read; load it with torch and save it anew"
CASES = {
    name.removeprefix("case_"): case for name, case in list(globals().items()) if name.startswith("case_")
} | {
    ".bin": unknown(".bin", BARE),
    ".pt": unknown(".pt", BARE),
    ".pth": unknown(".pth", BARE),
    ".ckpt": unknown(".ckpt", BARE),
    ".pkl": unknown(".pkl", "bare pickles are not read; convert to safetensors"),
    "no_weights": (
        lambda d: (d / "training_args.bin").touch() or (d, "expected one of *.safetensors.index.json")
    ),
    ".gguf": unknown(".gguf", "unknown suffix '.gguf'; supported are .safetensors, .npz, .npy"),
    ".json": unknown(".json", "unknown suffix '.json'"),
    "no_suffix": unknown("", "unknown suffix ''"),
    "empty_index": index_text(b"", "empty file"),
    "index_not_json": index_text(b"{", "is not JSON"),
    "index_is_a_list": index_text(b"[1]", "is not a JSON object"),
    "index_not_utf8": index_text(b'{"\xff": 1}', "is not UTF-8"),
    "index_nested_deeply": index_text(b"[" * 100_000, "nested too deeply"),
    "index_without_weight_map": index_text(b"{}", "no weight_map"),
    "index_with_a_key_twice": index_text(b'{"weight_map": {"a": "m", "a": "n"}}', "duplicate key 'a'"),
    "weight_map_is_a_list": mapped(["m.safetensors"], "no weight_map"),
    "weight_map_is_empty": mapped({}, "no weight_map"),
    "weight_map_to_a_number": mapped({"a": 1}, "tensor 'a' has no file name"),
    "weight_map_to_null": mapped({"a": None}, "tensor 'a' has no file name"),
    "missing_shard": mapped({"a": "gone.safetensors"}, "shard 'gone.safetensors' is missing"),
    "tensor_not_in_its_shard": mapped({"q": "m.safetensors"}, "tensor 'q' is not in shard 'm.safetensors'"),
    "shard_upwards": mapped_to("../m.safetensors"),
    "shard_absolute": mapped_to("/etc/m.safetensors"),
    "shard_in_a_folder": mapped_to("sub/m.safetensors"),
    "shard_with_backslash": mapped_to("..\\m.safetensors"),
    "shard_with_line_end": mapped_to("m.safetensors\n"),
    "shard_with_null": mapped_to("m\0.safetensors"),
    "shard_of_another_format": mapped_to("m.bin"),
    "shard_without_a_name": mapped_to(""),
    "shard_of_dots": mapped_to(".."),
    "shard_is_a_url": mapped_to("https://x/m.safetensors"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(tmp_path, case):
    path, fault = CASES[case](tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert fault in message
    assert os.fspath(tmp_path) in message
    assert message.isprintable()


def test_empty_path():
    with pytest.raises(CheckpointError, match="empty path"):
        open_checkpoint("")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_permission_denied(tmp_path, what):
    (tmp_path / "d").mkdir()
    path = save(tmp_path / "d" / "w.safetensors", A)
    target = path if what == "file" else path.parent
    target.chmod(0)
    try:
        with pytest.raises(CheckpointError, match="permission denied"):
            open_checkpoint(target)
    finally:
        target.chmod(0o700)


def test_permission_denied_to_anyone(tmp_path, monkeypatch):
    path = save(tmp_path / "w.safetensors", A)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: permission denied"):
        open_checkpoint(path)


def test_an_index_too_large(tmp_path):
    with (tmp_path / "model.safetensors.index.json").open("wb") as stream:
        stream.truncate(100_000_001)
    with pytest.raises(CheckpointError, match="index of 100000001 bytes"):
        open_checkpoint(tmp_path)


def test_index_json_escapes_stay_names(tmp_path):
    save(tmp_path / "m.safetensors", {"tab\there": weights(2, 2)})
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"tab\there": "m.safetensors"}})
    )
    assert [entry.name for entry in open_checkpoint(tmp_path).tensors] == ["tab\there"]
