"""The training of the demo's GPT and its checkpoints (imports torch)."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from _gpt import Weights, init_weights, loss_of
from _recipe import Recipe, RecipeError
from torch import Tensor

DTYPES = {"bf16": ("BF16", torch.bfloat16, torch.int16), "f32": ("F32", torch.float32, torch.int32)}
VALIDATION_WINDOWS = 64


def learning_rate(step: int, recipe: Recipe) -> float:
    """Warm up over the first tenth (100 steps at most), then follow a cosine down to a tenth.

    Parameters
    ----------
    step : int
        Updates done so far.
    recipe : Recipe
        Its `lr` is the peak.

    Returns
    -------
    float
        The rate of the next update.
    """
    warm = min(100, max(1, recipe.steps // 10))
    if step < warm:
        return recipe.lr * (step + 1) / warm
    done = (step - warm) / max(1, recipe.steps - warm)
    return recipe.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def save(path: Path, weights: Weights, metadata: dict[str, str], dtype: str) -> None:
    """Write a safetensors checkpoint whole or not at all; the same weights give the same bytes.

    Parameters
    ----------
    path : Path
        The file; it is written beside itself first and then moved there.
    weights : dict of str to Tensor
        The trained weights; the tied head is added.
    metadata : dict of str to str
        Stored in the header.
    dtype : {"bf16", "f32"}
        How the weights are stored.
    """
    label, stored, bits = DTYPES[dtype]
    named = {**weights, "head.weight": weights["tok_emb.weight"]}
    header: dict[str, object] = {"__metadata__": metadata}
    blobs: list[bytes] = []
    end = 0
    for name in sorted(named):
        tensor = named[name].detach().cpu().to(stored).contiguous()
        blobs.append(tensor.view(bits).numpy().tobytes())
        start, end = end, end + len(blobs[-1])
        header[name] = {"dtype": label, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.writelines(blobs)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def choose_device(name: str) -> str:
    """Find the device to train on.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}
        What was asked for.

    Returns
    -------
    str
        ``cuda`` or ``cpu``.

    Raises
    ------
    RecipeError
        If CUDA was asked for and is not there.
    """
    cuda = bool(torch.cuda.is_available())
    if name == "cuda" and not cuda:
        raise RecipeError("--device cuda: torch sees no CUDA device here")
    return "cuda" if name != "cpu" and cuda else "cpu"


def _windows(tokens: Tensor, starts: Tensor, recipe: Recipe, device: str) -> Tensor:
    return tokens[starts[:, None] + torch.arange(recipe.context + 1)].long().to(device)


def _validate(weights: Weights, held: Tensor, recipe: Recipe, device: str) -> float:
    """Return the mean loss over evenly spaced windows of the held-out tokens."""
    last = len(held) - recipe.context - 1
    starts = torch.linspace(0, last, min(VALIDATION_WINDOWS, last + 1)).long()
    total = 0.0
    with torch.no_grad():
        for part in starts.split(recipe.batch):
            total += len(part) * float(loss_of(weights, _windows(held, part, recipe, device), recipe))
    return total / len(starts)


def _optimizer(weights: Weights, lr: float) -> torch.optim.AdamW:
    """Build AdamW with weight decay 0.1 on the matrices and none on biases and norms."""
    matrices = [w for w in weights.values() if w.dim() > 1]
    vectors = [w for w in weights.values() if w.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))


def _updates(weights: Weights, tokens: Tensor, recipe: Recipe, device: str) -> Iterator[Tensor]:
    """Train one step at a time and yield each step's loss."""
    optimizer = _optimizer(weights, recipe.lr)
    generator = torch.Generator().manual_seed(recipe.seed)
    for step in range(recipe.steps):
        starts = torch.randint(len(tokens) - recipe.context, (recipe.batch,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        loss = loss_of(weights, _windows(tokens, starts, recipe, device), recipe)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        yield loss.detach()


def train(tokens: Tensor, recipe: Recipe, out: Path, say: Callable[[str], None]) -> list[Path]:
    """Train a model and save its checkpoints.

    Parameters
    ----------
    tokens : Tensor
        The text; its last twentieth is held out for the validation loss.
    recipe : Recipe
        The run. On a CPU with the same number of threads, the same recipe gives the same bytes.
    out : Path
        Folder for ``stepNNNNN.safetensors``.
    say : callable
        Takes each progress line.

    Returns
    -------
    list of Path
        The files written.
    """
    device = choose_device(recipe.device)
    held = tokens[len(tokens) - len(tokens) // 20 :]
    tokens = tokens[: len(tokens) - len(held)]
    if len(held) <= recipe.context:
        raise RecipeError(
            f"{len(held)} held-out tokens are too few for --context {recipe.context}: more text"
        )
    weights = init_weights(recipe, device)
    written: list[Path] = []

    def keep(step: int) -> None:
        if step in recipe.save:
            loss = f"{_validate(weights, held, recipe, device):.4f}"
            path = out / f"step{step:05d}.safetensors"
            save(path, weights, {"format": "pt", "step": str(step), "val_loss": loss}, recipe.dtype)
            say(f"saved {path}  val_loss {loss}")
            written.append(path)

    keep(0)
    every = max(1, recipe.steps // 20)
    clock = time.perf_counter()
    for step, loss in enumerate(_updates(weights, tokens, recipe, device), start=1):
        if step % every == 0:
            shown = float(loss)
            speed = every * recipe.batch * recipe.context / (time.perf_counter() - clock)
            say(f"step {step}/{recipe.steps}  loss {shown:.4f}  {speed:,.0f} tokens/s")
        keep(step)
        if step % every == 0:
            clock = time.perf_counter()
    return written
