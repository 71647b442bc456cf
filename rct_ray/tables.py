"""Write what is measured into a run's tables while it comes in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from rct_ray import tabulate
from rct_ray.engine.measure import Measured, ScopeTower, TensorFigures
from rct_ray.engine.plan import Plan
from rct_ray.results import DECODERS, LEVELS, SHARDS, TENSORS, RunWriter

# Bytes of decoders, and tensors, that are held before they are written: bounds memory, and makes pieces that
# are worth reading.
_HELD_BYTES = 16 << 20
_HELD = 2000


def write_measured(
    writer: RunWriter, label: str, part: str | None, plan: Plan, measured: Iterable[Measured]
) -> None:
    """Write the four tables of one checkpoint.

    Parameters
    ----------
    writer : RunWriter
    label : str
        The checkpoint's name in the tables.
    part : str or None
        The same, in a run over several.
    plan : Plan
    measured : iterable of Measured
    """
    step = plan.checkpoint.step
    seen: dict[str, TensorFigures] = {}
    with ExitStack() as stack:
        levels = stack.enter_context(writer.open_table("levels", LEVELS, part))
        decoders = stack.enter_context(writer.open_table("decoders", DECODERS, part))
        shards = stack.enter_context(writer.open_table("shards", SHARDS, part))
        held: list[Measured] = []
        held_bytes = 0

        def flush() -> None:
            towers = [tower for one in held for tower in one.towers]
            levels.append(tabulate.level_rows(towers, label, step))
            decoders.append(tabulate.decoder_rows(towers, label))
            shards.append(
                tabulate.shard_rows(plan, [result for one in held for result in one.results], label)
            )
            held.clear()

        for one in measured:
            held.append(one)
            held_bytes += sum(_decoder_bytes(tower) for tower in one.towers)
            if one.figures is not None:
                seen[one.figures.entry.name] = one.figures
            if len(held) >= _HELD or held_bytes >= _HELD_BYTES:
                flush()
                held_bytes = 0
        flush()
    writer.write_table("tensors", tabulate.tensor_rows(plan, seen, label), TENSORS, part)


def _decoder_bytes(tower: ScopeTower) -> int:
    return 0 if tower.ascent is None else sum(rung.step.nbytes for rung in tower.ascent.rungs)
