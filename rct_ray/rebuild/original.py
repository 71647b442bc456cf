"""The checkpoint that a run measured, opened again and known to be the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rct_ray.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from rct_ray.rebuild.errors import RebuildError


def open_original(member: Mapping[str, Any], path: str | os.PathLike[str] | None) -> Checkpoint:
    """Open the checkpoint that a run measured.

    Parameters
    ----------
    member : mapping
        What the run's manifest says of the checkpoint.
    path : path or None
        Where it is now; by default where it was.

    Raises
    ------
    CheckpointError, RebuildError
        If it can't be opened, or its files have not the size and the header that they had. That the values are the
        same is checked when they are read.
    """
    try:
        checkpoint = open_checkpoint(member["path"] if path is None else path)
    except CheckpointError as error:
        if path is not None:
            raise
        raise RebuildError(f"{error}; if it was moved, say where it is") from None
    measured = sorted((file["bytes"], file["header_sha256"]) for file in member["files"])
    if sorted((file.size, file.header_sha256) for file in checkpoint.files) != measured:
        raise RebuildError(
            f"{checkpoint.path} is not the checkpoint that was measured ({member['label']}): its files have other "
            "sizes or headers; give the one that was, or run again"
        )
    return checkpoint
