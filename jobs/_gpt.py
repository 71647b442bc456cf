"""A small GPT as plain functions over named weights (imports torch)."""

from __future__ import annotations

import math

import torch
from _recipe import Recipe
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]


def shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Name every trained weight and its shape (the head is `tok_emb`, so it is not here).

    Parameters
    ----------
    recipe : Recipe
        The model's shape.

    Returns
    -------
    dict of str to tuple of int
        Linear weights are (outputs, inputs).
    """
    width = recipe.width
    linears = {"attn.c_attn": (3, 1), "attn.c_proj": (1, 1), "mlp.0": (4, 1), "mlp.2": (1, 4)}
    named: dict[str, tuple[int, ...]] = {
        "tok_emb.weight": (recipe.vocabulary, width),
        "pos_emb.weight": (recipe.context, width),
    }
    for n in range(recipe.blocks):
        for name, (rows, columns) in linears.items():
            named[f"blocks.{n}.{name}.weight"] = (rows * width, columns * width)
            named[f"blocks.{n}.{name}.bias"] = (rows * width,)
    for norm in [f"blocks.{n}.ln_{i}" for n in range(recipe.blocks) for i in (1, 2)] + ["ln_f"]:
        named[f"{norm}.weight"] = named[f"{norm}.bias"] = (width,)
    return named


def init_weights(recipe: Recipe, device: str) -> Weights:
    """Draw the untrained weights: normal with deviation 0.02, biases 0, norms 1.

    Parameters
    ----------
    recipe : Recipe
        Its `init` says whether the two matrices that write to the residual stream are scaled
        by 1 / sqrt(2 blocks) (``residual``) or not (``plain``).
    device : str
        Where the weights go; they are drawn on the CPU, so every device gets the same.

    Returns
    -------
    dict of str to Tensor
        Float32 weights that collect gradients.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    residual = 1 / math.sqrt(2 * recipe.blocks) if recipe.init == "residual" else 1.0
    weights: Weights = {}
    for name, shape in shapes(recipe).items():
        if len(shape) == 1:
            drawn = torch.full(shape, float(name.endswith("weight")))
        else:
            scale = residual if name.endswith(("c_proj.weight", "mlp.2.weight")) else 1.0
            drawn = torch.randn(shape, generator=generator) * (0.02 * scale)
        weights[name] = drawn.to(device).requires_grad_()
    return weights


def logits(weights: Weights, tokens: Tensor, recipe: Recipe) -> Tensor:
    """Run the model.

    Parameters
    ----------
    weights : dict of str to Tensor
        From `init_weights`.
    tokens : Tensor
        Token numbers, (batch, length), length at most the context.
    recipe : Recipe
        The model's shape.

    Returns
    -------
    Tensor
        (batch, length, vocabulary).
    """

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        shape = (recipe.width,)
        return functional.layer_norm(x, shape, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attention(x: Tensor, name: str) -> Tensor:
        split = linear(x, f"{name}.c_attn").unflatten(-1, (3, recipe.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*split.unbind(0), is_causal=True)
        return linear(mixed.transpose(1, 2).flatten(-2), f"{name}.c_proj")

    x = weights["tok_emb.weight"][tokens] + weights["pos_emb.weight"][: tokens.shape[1]]
    for n in range(recipe.blocks):
        block = f"blocks.{n}"
        x = x + attention(norm(x, f"{block}.ln_1"), f"{block}.attn")
        hidden = functional.gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.0"))
        x = x + linear(hidden, f"{block}.mlp.2")
    return functional.linear(norm(x, "ln_f"), weights["tok_emb.weight"])


def loss_of(weights: Weights, windows: Tensor, recipe: Recipe) -> Tensor:
    """Measure how well the model tells the next token.

    Parameters
    ----------
    weights : dict of str to Tensor
        From `init_weights`.
    windows : Tensor
        Token numbers, (batch, context + 1).
    recipe : Recipe
        The model's shape.

    Returns
    -------
    Tensor
        The mean cross-entropy in nats. On CUDA the products are in bfloat16.
    """
    kind = windows.device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
        scores = logits(weights, windows[:, :-1], recipe)
    return functional.cross_entropy(scores.flatten(0, 1).float(), windows[:, 1:].flatten())
