"""Checkpoints to measure on: the ones at hand, and made ones of any size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

PHOTONIC = Path(__file__).parents[2] / "shared/checkpoints/photonic/step01400.safetensors"
Shape = tuple[int, ...]

_BLOCK = 1 << 24
_NAMES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16)}


def write_checkpoint(path: Path, dtype: str, shapes: Sequence[tuple[str, Shape]]) -> None:
    """Write a safetensors file of normal weights; the same 16 million over and over, so that it is quick."""
    block = noise(_BLOCK).astype(_NAMES[dtype]).tobytes()
    sizes = [prod(shape) * _NAMES[dtype].itemsize for _, shape in shapes]
    with path.open("wb") as file:
        file.write(_header(dtype, shapes, sizes))
        for size in sizes:
            for first in range(0, size, len(block)):
                file.write(block[: min(len(block), size - first)])


def write_matrix(path: Path, dtype: str, W: NDArray[Any]) -> None:
    """Write one matrix as a safetensors file."""
    with path.open("wb") as file:
        file.write(_header(dtype, [("weight", W.shape)], [W.nbytes]))
        file.write(W.view(np.uint8).data)


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal weights of the usual size."""
    drawn = np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
    return np.multiply(drawn, 0.02, out=drawn)


def photonic_shapes() -> list[tuple[str, Shape]]:
    """The 10.3 million weights (the tied head is stored too) of the trained checkpoint that may be absent."""
    shapes: list[tuple[str, Shape]] = [("tok_emb.weight", (15007, 256)), ("pos_emb.weight", (512, 256))]
    for block in range(8):
        for name, rows, width in (
            ("attn.c_attn", 768, 256),
            ("attn.c_proj", 256, 256),
            ("mlp.0", 1024, 256),
            ("mlp.2", 256, 1024),
        ):
            shapes += [(f"blocks.{block}.{name}.weight", (rows, width))]
            shapes += [(f"blocks.{block}.{name}.bias", (rows,))]
        shapes += [(f"blocks.{block}.ln_{n}.{kind}", (256,)) for n in (1, 2) for kind in ("weight", "bias")]
    return [*shapes, ("ln_f.weight", (256,)), ("ln_f.bias", (256,)), ("head.weight", (15007, 256))]


def read_plainly(path: Path) -> dict[str, NDArray[np.float64]]:
    """Matrices of a safetensors file of BF16, read without any of the product's code."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    matrices = {}
    for name, tensor in header.items():
        if len(tensor["shape"]) == 2 and tensor["dtype"] == "BF16":
            first, last = tensor["data_offsets"]
            codes = np.frombuffer(raw[start + first : start + last], np.uint16).astype(np.uint32)
            matrices[name] = (codes << 16).view(np.float32).astype(np.float64).reshape(tensor["shape"])
    return matrices


def _header(dtype: str, shapes: Iterable[tuple[str, Shape]], sizes: Iterable[int]) -> bytes:
    entries, start = {}, 0
    for (name, shape), size in zip(shapes, sizes, strict=True):
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
