"""Train a small GPT on the standard library's source and save checkpoints to measure.

``python jobs/train_demo.py --out demo --preset tiny`` makes checkpoints shaped like the one in the
package; every size is an option. Needs torch: ``pip install '.[torch]'``.
"""

from __future__ import annotations

import importlib
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from _bytepair import BytePairs, library_texts
from _recipe import PRESETS, Recipe, RecipeError, check, parse_steps

app = typer.Typer(add_completion=False, rich_markup_mode=None)
NO_TORCH = "training needs torch: pip install '.[torch]'"


def make_recipe(preset: str, given: dict[str, Any]) -> Recipe:
    """Put the options that were given over a preset, and check the result.

    Parameters
    ----------
    preset : str
        ``photonic`` or ``tiny``.
    given : dict of str to object
        Fields of `Recipe`, with `save` as text; None stands for an option not given.

    Returns
    -------
    Recipe
        Where `steps` is given and `save` is not, the preset's earlier saves and the last step are saved.

    Raises
    ------
    RecipeError
        With one line naming what is wrong.
    """
    if preset not in PRESETS:
        raise RecipeError(f"--preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    changes = {name: value for name, value in given.items() if value is not None}
    if "save" in changes:
        changes["save"] = parse_steps(changes["save"])
    elif "steps" in changes:
        last: int = changes["steps"]
        changes["save"] = (*(step for step in PRESETS[preset].save if step < last), last)
    recipe = replace(PRESETS[preset], **changes)
    check(recipe)
    return recipe


def run(recipe: Recipe, out: Path) -> list[Path]:
    """Train the tokens and the model, and save the checkpoints.

    Parameters
    ----------
    recipe : Recipe
        The run.
    out : Path
        Folder for the checkpoints; made if missing.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    RecipeError
        If torch is missing, or the machine cannot run the recipe.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise RecipeError(NO_TORCH) from None
    import _training  # imports torch, so it waits for the check above

    _training.choose_device(recipe.device)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"--out {out}: {error.strerror}") from None
    texts = list(library_texts(recipe.text_limit, recipe.seed))
    pairs = BytePairs.train(texts, recipe.vocabulary)
    tokens = array("i")
    for text in texts:
        tokens.extend(pairs.encode(text))
    read = sum(map(len, texts))
    typer.echo(f"text: {read:,} characters, {len(tokens):,} tokens of {len(pairs.pieces):,} kinds")
    return _training.train(torch.tensor(tokens, dtype=torch.int32), recipe, out, typer.echo)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="folder for stepNNNNN.safetensors")],
    preset: Annotated[str, typer.Option(help="photonic or tiny, for what is not given")] = "photonic",
    blocks: Annotated[int | None, typer.Option(help="transformer blocks")] = None,
    width: Annotated[int | None, typer.Option(help="size of the residual stream")] = None,
    heads: Annotated[int | None, typer.Option(help="attention heads; they divide the width")] = None,
    context: Annotated[int | None, typer.Option(help="tokens in a window")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="tokens, 257 or more")] = None,
    steps: Annotated[int | None, typer.Option(help="updates")] = None,
    save: Annotated[str | None, typer.Option(help="steps to save, as 0,100,400")] = None,
    batch: Annotated[int | None, typer.Option(help="windows in an update")] = None,
    lr: Annotated[float | None, typer.Option(help="highest learning rate")] = None,
    seed: Annotated[int | None, typer.Option(help="seeds the text's order, weights and batches")] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16 or f32, in the files")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
    init: Annotated[str | None, typer.Option(help="residual (scaled by depth) or plain")] = None,
    text_limit: Annotated[int | None, typer.Option(help="characters of source text to read")] = None,
) -> None:
    """Train a small GPT on the Python standard library's source and save its checkpoints."""
    given = dict(locals())
    del given["out"], given["preset"]
    try:
        run(make_recipe(preset, given), out)
    except RecipeError as error:
        typer.echo(f"error: {error}" if str(error) != NO_TORCH else NO_TORCH, err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
