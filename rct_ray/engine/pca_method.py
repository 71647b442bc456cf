"""How a width's coordinates are kept until they are decomposed, and whether the driver can hold them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from rct_ray.checkpoint import TensorEntry
from rct_ray.engine.errors import PlanError
from rct_ray.transform.encode import Summary
from rct_ray.transform.leading import decomposed_stage
from rct_ray.transform.stages import RowStage, Stage, first_coordinates, needs_rows, shared_over_width

# Copies of a K x K matrix that a driver holds while it merges and decomposes.
_COPIES = 4
# Of gathered rows, where stages code, round and rebuild them, and noise beside them.
_COPIES_OF_ROWS = 6
# Coordinates from which on randomized SVD is the better bargain.
_WIDEST = 4096
_FLOAT = 8


def pca_methods(
    entries: Sequence[TensorEntry],
    stages: Sequence[Stage],
    metric: str,
    wanted: str,
    driver_memory: int,
    sample_rows: int | None = None,
) -> dict[int, Summary]:
    """Choose for each width how its coordinates are summed up.

    On "auto" a float64 scatter of what is stored in 32 bits or fewer, which loses nothing that the weights
    had; triangular factors (TSQR) for a width with float64 weights, whose scatter would; randomized SVD beyond
    4,096 coordinates, or where their scatter outgrows `driver_memory`, if the tower allows it.

    Parameters
    ----------
    entries : sequence of TensorEntry
        The selected tensors.
    stages : sequence of Stage
        A fixed basis first leaves K coordinates, anything else all d columns.
    metric : {"isometric", "amplitude"}
    wanted : {"auto", "moments", "tsqr", "gather", "randomized"}
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
    tensors = Counter(entry.width for entry in entries)
    for entry in entries:
        rows[entry.width] += entry.rows
        double[entry.width] |= entry.value_dtype.itemsize > 4
    methods: dict[int, Summary] = {}
    first = stages[0]
    for width, count in rows.items():
        size = first_coordinates(first, width)
        drawn = min(count, sample_rows or count)
        methods[width] = _method(wanted, double[width], size, stages, metric, driver_memory)
        if needs_rows(stages):
            _check_rows(width, size, drawn, stages, driver_memory)
        else:
            _check_memory(width, size, drawn, methods[width], driver_memory)
        if shared_over_width(first) and methods[width] != "gather":
            _check_waiting(width, tensors[width], driver_memory)
    return methods


def _check_rows(width: int, size: int, rows: int, stages: Sequence[Stage], driver_memory: int) -> None:
    needed = _FLOAT * _COPIES_OF_ROWS * rows * size
    if needed > driver_memory:
        raise PlanError(
            f"width {width}: {_row_stage(stages)} works on rows, and {_COPIES_OF_ROWS} copies of "
            f"{rows:,} x {size:,} coordinates take {needed / 2**30:.2f} GiB on the driver; --driver-memory is "
            f"{driver_memory / 2**30:.2f} GiB: raise it, draw --sample-rows, or begin with fewer components"
        )


def _row_stage(stages: Sequence[Stage]) -> str:
    return next(stage.spec for stage in stages if isinstance(stage, RowStage))


def _check_waiting(width: int, tensors: int, driver_memory: int) -> None:
    """Each matrix's moments wait for the basis that the last one has a say in."""
    needed = _FLOAT * tensors * width**2
    if needed > driver_memory:
        raise PlanError(
            f"width {width}: the {width:,} x {width:,} moments of {tensors:,} tensors wait for their shared basis "
            f"and take {needed / 2**30:.2f} GiB on the driver; --driver-memory is {driver_memory / 2**30:.2f} GiB: "
            "raise it, or let each tensor have a basis of its own"
        )


def _method(
    wanted: str, double: bool, size: int, stages: Sequence[Stage], metric: str, driver_memory: int
) -> Summary:
    if needs_rows(stages):
        if wanted not in ("auto", "gather"):
            raise PlanError(f"{_row_stage(stages)} works on rows: use --pca auto or gather, not {wanted}")
        return "gather"
    possible = decomposed_stage(stages) is not None and metric == "isometric"
    match wanted:
        case "randomized":
            if not possible:
                raise PlanError(
                    "--pca randomized needs the isometric metric, and a pca as the first stage or right after a "
                    "fixed basis"
                )
            return wanted
        case "moments" | "tsqr" | "gather":
            return wanted
        case "auto":
            if possible and (size > _WIDEST or _matrices(size) > driver_memory):
                return "randomized"
            return "tsqr" if double else "moments"
    raise PlanError(f"pca must be auto, gather, moments, tsqr or randomized, not {wanted!r}")


def _matrices(size: int) -> int:
    return _FLOAT * _COPIES * size**2


def _check_memory(width: int, size: int, rows: int, method: Summary, driver_memory: int) -> None:
    if method == "randomized":
        return
    needed = _FLOAT * 2 * rows * size if method == "gather" else _matrices(size)
    if needed <= driver_memory:
        return
    what = f"the {rows:,} x {size:,} coordinates" if method == "gather" else f"{size:,} x {size:,} moments"
    raise PlanError(
        f"width {width}: {what} take {needed / 2**30:.2f} GiB on the driver and --driver-memory is "
        f"{driver_memory / 2**30:.2f} GiB: raise it, or use --pca auto with a pca first or right after the basis"
    )
