"""How a width's coordinates are kept until they are decomposed, and whether the driver can hold them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rct_ray.checkpoint import TensorEntry
from rct_ray.engine.errors import PlanError
from rct_ray.transform.encode import Summary
from rct_ray.transform.stages import PCAStage, Stage

# Copies of a K x K matrix that a driver holds while it merges and decomposes.
_COPIES = 4
_FLOAT = 8


def pca_methods(
    entries: Sequence[TensorEntry],
    first: Stage,
    wanted: str,
    driver_memory: int,
    sample_rows: int | None = None,
) -> dict[int, Summary]:
    """Choose for each width how its coordinates are summed up.

    On "auto" a float64 scatter of what is stored in 32 bits or fewer, which loses nothing that the weights
    had; triangular factors (TSQR) for a width with float64 weights, whose scatter would.

    Parameters
    ----------
    entries : sequence of TensorEntry
        The selected tensors.
    first : Stage
        Of the tower: a fixed basis leaves K coordinates, anything else all d columns.
    wanted : {"auto", "moments", "tsqr", "gather"}
    driver_memory : int
        Bytes that one level may take on the driver.
    sample_rows : int, optional
        Rows drawn of each width.

    Raises
    ------
    PlanError
        If a width's coordinates outgrow `driver_memory` as they are to be kept.
    """
    rows: defaultdict[int, int] = defaultdict(int)
    double: defaultdict[int, bool] = defaultdict(bool)
    for entry in entries:
        rows[entry.width] += entry.rows
        double[entry.width] |= entry.value_dtype.itemsize > 4
    methods: dict[int, Summary] = {}
    for width, count in rows.items():
        method = _method(wanted, double[width])
        size = width if isinstance(first, PCAStage) or first.name == "svd" else first.components_for(width)
        _check_memory(width, size, min(count, sample_rows or count), method, driver_memory)
        methods[width] = method
    return methods


def _method(wanted: str, double: bool) -> Summary:
    match wanted:
        case "moments" | "tsqr" | "gather":
            return wanted
        case "auto":
            return "tsqr" if double else "moments"
    raise PlanError(f"pca must be auto, gather, moments or tsqr, not {wanted!r}")


def _check_memory(width: int, size: int, rows: int, method: Summary, driver_memory: int) -> None:
    needed = _FLOAT * (2 * rows * size if method == "gather" else _COPIES * size**2)
    if needed <= driver_memory:
        return
    what = f"the {rows:,} x {size:,} coordinates" if method == "gather" else f"{size:,} x {size:,} moments"
    advice = "use --pca moments" if method == "gather" else "choose a first stage with fewer components"
    raise PlanError(
        f"width {width}: {what} take {needed / 2**30:.2f} GiB on the driver and --driver-memory is "
        f"{driver_memory / 2**30:.2f} GiB: raise it, or {advice}"
    )
