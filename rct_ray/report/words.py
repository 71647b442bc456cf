"""What a tower says, in sentences."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Level: TypeAlias = Mapping[str, Any]


def fixed_point(levels: Sequence[Level]) -> int | None:
    """Level number of the fixed point, None if the tower ends before one."""
    return next((level["level"] for level in levels if level["fixed_point"]), None)


def honest_level(levels: Sequence[Level]) -> Level:
    """The level with the fewest bits at R2 = 0.99; the lowest of equals."""
    return min(levels, key=lambda level: (level["bits_per_weight"], level["level"]))


def conclusions(levels: Sequence[Level]) -> list[str]:
    """Sentences on one tower: its fixed point, its honest level, and every level against its null."""
    said = [_fixed_point(levels), _honesty(levels)]
    for below, level in itertools.pairwise(levels):
        said.append(_rotation(level) if _only_rotates(below, level) else _above_chance(level))
    return said


def _only_rotates(below: Level, level: Level) -> bool:
    return below["level"] > 0 and level["n_keep"] is not None and level["n_keep"] == below["n_components"]


def _rotation(level: Level) -> str:
    return (
        f"Level {level['level']} ({level['stage']}) needs all {level['n_keep']} components: it only rotates "
        f"level {level['level'] - 1}."
    )


def _fixed_point(levels: Sequence[Level]) -> str:
    found = fixed_point(levels)
    if found is None:
        top = levels[-1]
        return (
            f"Fixed point: not within this tower. Level {top['level']} charges {top['params']:,} parameters, "
            f"still fewer than level {top['level'] - 1}'s {levels[-2]['params']:,}."
        )
    here, after = levels[found], levels[found + 1]
    return (
        f"Fixed point: level {found}, {here['params']:,} parameters "
        f"({here['cumulative_ratio']:,.1f}x of {here['weights']:,} weights); "
        f"level {found + 1} charges {after['params']:,}."
    )


def _honesty(levels: Sequence[Level]) -> str:
    best, plain = honest_level(levels), levels[0]["bits_per_weight"]
    if best["level"] > 0:
        return (
            f"Honest level: {best['level']}. Described to R2 0.99, the weights take "
            f"{best['bits_per_weight']:.2f} bits each there, and {plain:.2f} with no model."
        )
    rival = min(levels[1:], key=lambda level: float(level["bits_per_weight"]))
    return (
        f"Honest level: 0. Described to R2 0.99, the weights take {plain:.2f} bits each with no model, "
        f"and {rival['bits_per_weight']:.2f} at the best level above (level {rival['level']}): "
        "no level pays for itself."
    )


def _above_chance(level: Level) -> str:
    said = f"Level {level['level']} ({level['stage']}) keeps {percent(level['r2'])} of the energy"
    if level["null_r2"] is not None:
        gap = level["r2"] - level["null_r2"]
        side = "above" if gap >= 0 else "below"
        said += (
            f", {abs(100 * gap):.2f} percentage points {side} chance (weights without structure, coded at the "
            f"same size, keep {percent(level['null_r2'])})"
        )
    if level["participation_ratio"] is not None and level["null_participation_ratio"] is not None:
        said += (
            f"; participation ratio {level['participation_ratio']:.2f}, "
            f"{level['null_participation_ratio']:.2f} without structure"
        )
    if level["svd_bound_r2"] is not None:
        said += f"; the best low-rank factors of this size keep {percent(level['svd_bound_r2'])}"
    return said + "."


def percent(share: float) -> str:
    """A share as a percentage, with more digits where it is small."""
    return f"{share:.2%}" if abs(share) < 0.1 else f"{share:.1%}"
