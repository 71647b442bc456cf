"""Which paths of this machine mean the same on every node of the cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rct_ray.submit.errors import SubmitError


def is_this_machine(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a cluster is no more than this machine, whose files it then sees.

    The address doesn't say: http://127.0.0.1:8265 is as often a tunnel to a cluster (`kubectl port-forward`,
    `ssh -L`). Its nodes do: all must bear this machine's name and one of its addresses.

    Parameters
    ----------
    nodes : iterable of mappings
        `hostname` and `ip` of every node that is alive.
    """
    seen = [(node.get("hostname"), node.get("ip")) for node in nodes]
    return bool(seen) and all(name == socket.gethostname() and _is_own(str(ip)) for name, ip in seen)


def cluster_path(path: str, shared: Sequence[str], *, here: bool) -> str:
    """A path as the cluster is to open it: absolute, for a job starts in a directory of its own.

    Parameters
    ----------
    path : str
        Absolute, or relative to the current directory; may be a glob, or @FILE. URLs stay as they are.
    shared : sequence of str
        Directories that are the same on this machine's command line and on every node.
    here : bool
        Whether the cluster is this machine.

    Raises
    ------
    SubmitError
        If nothing says that the cluster sees it.
    """
    if "://" in path:
        return path
    # Without its dots, so that /shared/../home is seen for what it is; symbolic links are the cluster's own.
    mark = "@" if path.startswith("@") else ""
    absolute = os.path.normpath(Path(path.removeprefix(mark)).absolute())
    if here or any(Path(absolute).is_relative_to(os.path.normpath(prefix)) for prefix in shared):
        return f"{mark}{absolute}"
    if shared:
        raise SubmitError(f"{absolute} is not under {' or '.join(shared)}, which the cluster shares")
    raise SubmitError(
        f"the cluster may not see {absolute}: put it where every node sees it, and say which directory is "
        f"shared, such as --shared-path {_first_directory(absolute)}"
    )


def check_shared(prefixes: Sequence[str]) -> None:
    """Refuse shared directories that are none.

    Raises
    ------
    SubmitError
        If one is relative.
    """
    for prefix in prefixes:
        if not Path(prefix).is_absolute():
            raise SubmitError(f"--shared-path {prefix} must be absolute: the same directory on every node")


def _first_directory(absolute: str) -> str:
    parts = Path(absolute).parts
    return str(Path(*parts[:2])) if len(parts) > 2 else "/mnt/shared"


def _is_own(address: str) -> bool:
    """Whether an IP address is one of this machine's: only such can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, UnicodeError):
        return False
    return True
