"""What one training run is asked to do, and the checks on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

CHOICES = {"dtype": ("bf16", "f32"), "device": ("auto", "cpu", "cuda"), "init": ("residual", "plain")}


class RecipeError(Exception):
    """The run cannot start; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The model's shape, its training and what is saved; the defaults are the preset `photonic`."""

    blocks: int = 8
    width: int = 256
    heads: int = 8
    context: int = 512
    vocabulary: int = 15_007
    steps: int = 1400
    save: tuple[int, ...] = (0, 100, 400, 1400)
    batch: int = 8
    lr: float = 3e-4
    seed: int = 7
    dtype: str = "bf16"
    device: str = "auto"
    init: str = "residual"
    text_limit: int = 24_000_000


PRESETS = {
    "photonic": Recipe(),
    "tiny": Recipe(blocks=1, context=256, vocabulary=1024, steps=2500, save=(0, 2500), seed=3),
}


def check(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be trained.

    Parameters
    ----------
    recipe : Recipe
        The run to check.

    Raises
    ------
    RecipeError
        With one line naming the first option that is wrong.
    """
    for name in ("blocks", "width", "heads", "context", "steps", "batch", "text_limit"):
        if getattr(recipe, name) < 1:
            raise RecipeError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(recipe, name)}")
    for name, allowed in CHOICES.items():
        if getattr(recipe, name) not in allowed:
            raise RecipeError(f"--{name} must be one of {', '.join(allowed)}, not {getattr(recipe, name)!r}")
    if recipe.width % recipe.heads:
        raise RecipeError(f"--heads {recipe.heads} does not divide --width {recipe.width}")
    if recipe.vocabulary < 257:
        raise RecipeError(
            f"--vocabulary must be at least 257 (256 bytes and a pair), not {recipe.vocabulary}"
        )
    if not (math.isfinite(recipe.lr) and recipe.lr > 0):
        raise RecipeError(f"--lr must be a positive number, not {recipe.lr}")
    if not 0 <= recipe.seed < 2**63:
        raise RecipeError(f"--seed must be from 0 to 2^63 - 1, not {recipe.seed}")
    if not recipe.save:
        raise RecipeError("--save names no step")
    for step in recipe.save:
        if not 0 <= step <= recipe.steps:
            raise RecipeError(f"--save {step} is outside the steps 0 to {recipe.steps}")


def parse_steps(text: str) -> tuple[int, ...]:
    """Read a comma-separated list of steps.

    Parameters
    ----------
    text : str
        Such as ``"0,100,400"``.

    Returns
    -------
    tuple of int
        The steps, sorted, each once.

    Raises
    ------
    RecipeError
        If a part is not a whole number.
    """
    try:
        return tuple(sorted({int(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        raise RecipeError(f"--save takes whole numbers with commas between them, not {text!r}") from None
