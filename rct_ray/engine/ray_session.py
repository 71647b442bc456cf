"""Joining Ray, or starting one of this process's own, so that nobody notices."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rct_ray.engine.errors import AddressError

_CONNECT_S = 5.0
# Of a local Ray's object store, where it carries no more than results.
_RESULTS_BYTES = 128 << 20


def check_reachable(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for minutes, and print what it tries.

    Raises
    ------
    AddressError
        If nobody does, or it is no address.
    """
    if address in ("local", "auto"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise AddressError(
            f"{address!r} is no address of a Ray cluster; write HOST:PORT, such as 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise AddressError(
            f"no Ray cluster answers at {address}: {error}; start one with 'ray start --head', or leave "
            "--address and RAY_ADDRESS away"
        ) from None


def import_ray() -> Any:
    """Ray, imported with the settings that a command on a laptop needs."""
    # All are read when Ray is imported. None may surprise a user who runs one command on a laptop.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    return ray


def settings(address: str, workers: int, store_bytes: int = _RESULTS_BYTES) -> dict[str, Any]:
    """What to tell `ray.init`: to join a cluster, or to start the least that these workers need."""
    if address != "local":
        return {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    return {
        "address": "local",
        "num_cpus": workers,
        "num_gpus": 0,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
        "object_store_memory": store_bytes,
    }


def join_ray(address: str, workers: int) -> None:
    """Join a cluster, or start a Ray of this process's own ("local")."""
    ray = import_ray()
    with _without_servers() if address == "local" else nullcontext():
        ray.init(**settings(address, workers))


@contextmanager
def _without_servers() -> Iterator[None]:
    """Start no process of Ray's that a Ray of one process has no use for.

    Those are the API server, which only counts usage when there is no dashboard but is waited for, and the
    autoscaler's monitor. Ray has no setting for that; where a version of it calls them otherwise, they are started.
    """
    from ray._private.node import Node

    def no_api_server(node: Any, *_: object, **__: object) -> None:
        node._webui_url = ""

    ours = {"start_api_server": no_api_server, "start_monitor": lambda node, *_, **__: None}
    theirs = {
        name: getattr(Node, name) for name in ours if hasattr(Node, name) and hasattr(Node, "webui_url")
    }
    try:
        for name in theirs:
            setattr(Node, name, ours[name])
        yield
    finally:
        for name, method in theirs.items():
            setattr(Node, name, method)


class own_sigterm:  # noqa: N801  (reads as a statement)
    """Keep this process's SIGTERM handler: Ray puts its own in place, which skips our cleaning up."""

    def __enter__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)
        if kind is SystemExit and callable(self._handler):
            # A SIGTERM came while Ray's own handler was in place, which exits; ours has to hear of it.
            self._handler(signal.SIGTERM, None)
