"""Where the time of a run went: by phase, by checkpoint, and in its slowest shards."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.text import Text

from rct_ray.report.layout import titled_table
from rct_ray.report.progress import printable
from rct_ray.report.rows import rows_of
from rct_ray.results import Run

# Who spends it, and what on.
_PHASES = {
    "read": ("workers", "weights from their files"),
    "encode": ("workers", "weights to moments"),
    "other": ("workers", "the rest of the shards' time: opening files, starting"),
    "wait": ("driver", "for workers; taking in and recording what they send"),
    "reduce": ("driver", "moments of shards to moments of tensors and widths"),
    "tower": ("driver", "moments to towers, and their nulls"),
    "write": ("driver", "towers to tables"),
}
_SLOWEST = 5


def timings_of(run: Run) -> dict[str, Any]:
    """Seconds by phase of the whole run, who worked, and the slowest shards; plain JSON types.

    The phases of workers are sums over all of them, those of the driver follow one another.
    """
    phases: Counter[str] = Counter(dict.fromkeys(_PHASES, 0.0))
    workers: dict[str, Counter[str]] = {}
    shards = []
    columns = [
        "checkpoint", "shard", "tensor", "rows", "bytes", "seconds", "seconds_read", "seconds_encode",
        "worker", "attempt",
    ]  # fmt: skip
    for row in rows_of(run.shards.select(columns)):
        phases["read"] += row["seconds_read"]
        phases["encode"] += row["seconds_encode"]
        phases["other"] += max(0.0, row["seconds"] - row["seconds_read"] - row["seconds_encode"])
        worker = workers.setdefault(row["worker"], Counter())
        worker.update(shards=1, bytes=row["bytes"], seconds=row["seconds"])
        shards.append(dict(row))
        if len(shards) > 1000:
            shards = _slowest(shards)
    for listed in run.manifest["checkpoints"]:
        phases.update(listed.get("seconds", {}))
    return {
        "seconds": run.manifest["seconds"],
        "phases": {phase: round(phases[phase], 6) for phase in _PHASES},
        "bytes": sum(worker["bytes"] for worker in workers.values()),
        "retried": sum(1 for row in rows_of(run.shards.select(["attempt"])) if row["attempt"]),
        "workers": {name: dict(counted) for name, counted in sorted(workers.items())},
        "slowest": _slowest(shards),
    }


def show_timings(run: Run, console: Console) -> None:
    """Print where the time of a run went."""
    known = timings_of(run)
    wall, size = known["seconds"], known["bytes"]
    console.print(
        f"{wall:.2f} s, {size / 1e6:,.1f} MB read by {len(known['workers'])} workers of the engine "
        f"{run.manifest['engine']['name']}: {size / 1e6 / max(wall, 1e-9):,.0f} MB/s"
    )
    table = titled_table("by phase")
    table.add_column("phase")
    table.add_column("of")
    table.add_column("seconds", justify="right")
    table.add_column("of its side", justify="right")
    table.add_column("what")
    sides = Counter[str]()
    for phase, (side, _) in _PHASES.items():
        sides[side] += known["phases"][phase]
    for phase, (side, what) in _PHASES.items():
        seconds = known["phases"][phase]
        share = f"{seconds / sides[side]:.0%}" if sides[side] else "-"
        table.add_row(phase, side, f"{seconds:.3f}", share, what)
    console.print(table)
    said = "The workers' phases are sums over all of them, so they may exceed the run's time."
    console.print(Text(said, style="dim"))
    slowest = titled_table("slowest shards")
    for column in ("checkpoint", "tensor", "rows", "MB", "seconds", "read", "encode", "attempt", "worker"):
        slowest.add_column(
            column, justify="left" if column in ("checkpoint", "tensor", "worker") else "right"
        )
    for row in known["slowest"]:
        slowest.add_row(
            Text(printable(row["checkpoint"])),
            Text(printable(row["tensor"])),
            f"{row['rows']:,}",
            f"{row['bytes'] / 1e6:,.1f}",
            *(f"{row[column]:.3f}" for column in ("seconds", "seconds_read", "seconds_encode")),
            str(row["attempt"]),
            Text(printable(row["worker"])),
        )
    if known["retried"]:
        slowest.caption = f"{known['retried']} shards were tried more than once"
    console.print(slowest)


def _slowest(shards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(shards, key=lambda row: -row["seconds"])[:_SLOWEST]
