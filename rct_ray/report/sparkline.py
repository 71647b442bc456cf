"""A series of figures as one line of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], widest: int = 24) -> str:
    """Bars from the least to the largest of the values; a dot where one is not known.

    Of more values than the widest line holds, evenly spaced ones are drawn, the first and the last among them.
    """
    if len(values) > widest:
        places = [round(place * (len(values) - 1) / (widest - 1)) for place in range(widest)]
        values = [values[place] for place in places]
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return "·" * len(values)
    least, span = min(known), max(known) - min(known)
    return "".join(
        "·"
        if value is None or not math.isfinite(value)
        else _BARS[round((value - least) / span * (len(_BARS) - 1)) if span else len(_BARS) // 2 - 1]
        for value in values
    )
