"""A frontier as a picture: R2 against bits a weight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa

from rct_ray.report.curves import TO_NEAREST, TRUNCATED, Row, curves, envelope, model_rows, of_kind
from rct_ray.report.progress import printable
from rct_ray.results import ResultsError
from rct_ray.results.files import check_writable, replacing

PICTURES = ("svg", "png", "pdf")
# R2 of the ticks where what is lost is drawn on a logarithmic scale, and up to where.
_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
_LEAST_LOST = 1e-5


def check_picture(path: Path) -> None:
    """Refuse a picture that can't be drawn, before the work of what is to be in it.

    Raises
    ------
    ResultsError
        If its suffix is not known, matplotlib is not installed, or it can't be written there.
    """
    if _kind(path) not in PICTURES:
        raise ResultsError(f"{path}: a picture ends in {', '.join('.' + one for one in PICTURES)}")
    if find_spec("matplotlib") is None:
        raise ResultsError("a picture needs matplotlib: pip install 'rct-ray[plot]'")
    check_writable(path)


def draw_frontier(table: pa.Table, path: Path) -> None:
    """Draw the model's curves: the best of each basis, its null, low rank, and plain rounding.

    Left R2 as it is, right so that a tenth of the loss is always as far.

    Parameters
    ----------
    table : pyarrow.Table
    path : Path
        Its suffix says what to draw: svg, png or pdf.

    Raises
    ------
    ResultsError
        If the suffix is another, matplotlib is not installed, or the file can't be written.
    """
    check_picture(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = model_rows(table)
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    plain, fine = figure.subplots(1, 2)
    for axes in (plain, fine):
        _draw_curves(axes, rows)
        _label_bits(axes, rows)
    plain.set(ylim=(0, 1.03), ylabel="R2, the share of the energy kept")
    fine.set_yscale("function", functions=(_digits, _share_of_digits))
    fine.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    fine.set(ylim=(0, 1 - _LEAST_LOST), ylabel="R2, what is lost on a logarithmic scale")
    for row in of_kind(rows, "reference", TO_NEAREST):
        fine.annotate(f"int{row['bits']}", _place(row), textcoords="offset points", xytext=(7, 3))
    title = f"{printable(rows[0]['checkpoint'])}: {rows[0]['weights']:,} weights"
    figure.suptitle(title, parse_math=False)
    handles, labels = plain.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    try:
        # The same file each time: no date, and names within that do not change.
        with replacing(path) as file, rc_context({"svg.hashsalt": "rct-ray"}):
            figure.savefig(file, format=_kind(path), dpi=110, metadata=_UNDATED.get(_kind(path), {}))
    except OSError as error:
        raise ResultsError(f"{path}: can't be written ({error.strerror or error})") from error


_UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def _draw_curves(axes: Any, rows: Sequence[Row]) -> None:
    for number, curve in enumerate(curves(rows)):
        axes.plot(*_line(envelope(of_kind(rows, "code", curve))), color=f"C{number}", marker=".", label=curve)
        null = envelope(of_kind(rows, "null", curve))
        axes.plot(*_line(null), color=f"C{number}", linestyle=":", linewidth=1.2)
    axes.plot([], [], color="grey", linestyle=":", linewidth=1.2, label="the same of shuffled entries")
    low_rank = envelope(of_kind(rows, "reference", TRUNCATED))
    axes.plot(*_line(low_rank), color="black", linestyle="--", label="truncated SVD, 16 bits a number")
    plain = of_kind(rows, "reference", TO_NEAREST)
    axes.plot(*_line(plain), "k^", label="weights rounded to nearest: int2, 3, 4, 8")


def _label_bits(axes: Any, rows: Sequence[Row]) -> None:
    least = min((row["bits_per_weight"] for row in rows if row["bits_per_weight"] > 0), default=1.0)
    ticks = [2.0**power for power in range(-10, 6) if 2.0 ** (power + 1) > least]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}" for tick in ticks])
    axes.set(xlabel="bits per weight", xlim=(least / 1.15, 20))
    axes.grid(alpha=0.3)


def _digits(share: Any) -> Any:
    """Digits kept, -log10(1 - R2)."""
    import numpy as np

    return -np.log10(np.maximum(1 - np.asarray(share), _LEAST_LOST / 10))


def _share_of_digits(digits: Any) -> Any:
    import numpy as np

    return 1 - 10.0 ** -np.asarray(digits)


def _kind(path: Path) -> str:
    return path.suffix.lstrip(".").lower()


def _place(row: Row) -> tuple[float, float]:
    return row["bits_per_weight"], row["r2"]


def _line(rows: Iterable[Row]) -> tuple[list[float], list[float]]:
    places = sorted(_place(row) for row in rows if row["bits_per_weight"] > 0)
    return [bits for bits, _ in places], [kept for _, kept in places]
