"""Engines: the plan of shards, the shard function, and what runs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from rct_ray.engine.inprocess import InProcessEngine
from rct_ray.engine.notices import Notice

if TYPE_CHECKING:
    from rct_ray.engine.ray_engine import RayEngine

    Engine: TypeAlias = InProcessEngine | RayEngine


def make_engine(
    name: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    say: Callable[[str], None] | None = None,
    notice: Notice | None = None,
) -> Engine:
    """Choose an engine: in-process, unless Ray is asked for by name or by address.

    Parameters
    ----------
    name : {"auto", "inprocess", "ray"}
    workers : int, optional
        Threads or actors; by default the CPUs this process may use.
    address : str, optional
        Of a running Ray cluster.
    say : callable, optional
        Gets a line when the engine waits, or had to replace a worker.
    notice : callable, optional
        Hears of units that are tried again.

    Raises
    ------
    ValueError
        If the name is unknown, or an address is given to the in-process engine.
    """
    if name not in ("auto", "inprocess", "ray"):
        raise ValueError(f"engine must be auto, inprocess or ray, not {name!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if name == "inprocess" and address:
        raise ValueError(f"the in-process engine has no use for --address {address}; use --engine ray")
    count = workers or len(os.sched_getaffinity(0))
    if name == "inprocess" or (name == "auto" and not address):
        return InProcessEngine(count)
    from rct_ray.engine.ray_engine import RayEngine

    return RayEngine(count, address, say, heard=notice)
