"""A tower as a picture: one bar for each level, drawn as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rct_ray.report.words import fixed_point, honest_level

_WIDTH, _STEP, _BAR, _MARGIN = 380, 64, 26, 8
_LEAST = 0.12


def tower_picture(levels: Sequence[Mapping[str, Any]]) -> str:
    """Draw a tower, its top level at the top.

    Parameters
    ----------
    levels : sequence of mappings
        Rows of one tower, the weights first.

    Returns
    -------
    str
        An SVG element. A bar is as long as the logarithm of the level's parameters, and filled to the share of the
        energy that the level keeps.
    """
    height = _STEP * len(levels) + _MARGIN
    fixed, honest = fixed_point(levels), honest_level(levels)["level"]
    most = math.log(max(max(level["params"] for level in levels), 2))
    drawn = [f'<svg class="tower" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="The tower">']
    for place, level in enumerate(reversed(levels)):
        marks = [
            said
            for said, marked in (
                ("fixed point", level["level"] == fixed),
                ("fewest bits", level["level"] == honest),
            )
            if marked
        ]
        length = _WIDTH * max(_LEAST, math.log(max(level["params"], 1)) / most)
        drawn.append(_bar(level, _STEP * place + _MARGIN, length, " · ".join(marks)))
    return "".join([*drawn, "</svg>"])


def _bar(level: Mapping[str, Any], top: float, length: float, marks: str) -> str:
    left, kept = (_WIDTH - length) / 2, min(max(level["r2"], 0.0), 1.0)
    chance = "" if level["null_r2"] is None or not level["level"] else f" · null {level['null_r2']:.4f}"
    bar, text = top + 18, top + 12
    return (
        f'<text x="0" y="{text}" class="stage">{level["level"]} {escape(level["stage"])}</text>'
        f'<text x="{_WIDTH}" y="{text}" text-anchor="end" class="mark">{marks}</text>'
        f'<rect x="{left:.1f}" y="{bar}" width="{length:.1f}" height="{_BAR}" rx="4" class="whole"/>'
        f'<rect x="{left:.1f}" y="{bar}" width="{length * kept:.1f}" height="{_BAR}" rx="4" class="kept"/>'
        f'<text x="{_WIDTH / 2}" y="{bar + 17}" text-anchor="middle" class="said">'
        f"{level['params']:,} · R2 {level['r2']:.4f}{chance}</text>"
    )
