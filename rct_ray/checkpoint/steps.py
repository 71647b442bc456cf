"""Which training step a checkpoint is of, as its metadata or its name says it."""

from __future__ import annotations

import re
from pathlib import Path

# The surest word first: 'checkpoint_2_step500' is of step 500.
_STEPS = [re.compile(rf"{word}[-_]?([0-9]+)", re.IGNORECASE) for word in ("step", "iter", "checkpoint")]
# The file may have one name in all steps, and its directory say which it is of: checkpoint-500/model.safetensors.
_DIRECTORY = re.compile(r"(?:global_?)?(?:step|iter|checkpoint)[-_]?([0-9]+)", re.IGNORECASE)
_INT64_MAX = 2**63 - 1


def step_of(metadata: str | None, path: Path, name: str) -> int | None:
    """Training step of a checkpoint.

    Parameters
    ----------
    metadata : str or None
        What the checkpoint itself has under ``step``; it is believed first.
    path : Path
        Where the checkpoint lies: the last to be asked is the directory it is in.
    name : str
        Name of the checkpoint.

    Returns
    -------
    int or None
        None if nothing says so.
    """
    if metadata is not None and re.fullmatch(r"\s*[0-9]{1,19}\s*", metadata):
        return _int64(metadata)
    named = step_in_name(name)
    if named is None and (match := _DIRECTORY.fullmatch(path.parent.name)):
        named = _int64(match[1])
    return named


def step_in_name(name: str) -> int | None:
    """Step that a name such as step01400, checkpoint-1400, global_step1400 or iter_0001400 says, if any."""
    match = next(filter(None, (pattern.search(name) for pattern in _STEPS)), None)
    return None if match is None else _int64(match[1])


def _int64(digits: str) -> int | None:
    # More than the column holds is no step.
    found = int(digits) if len(digits.strip().lstrip("0")) <= 19 else _INT64_MAX + 1
    return found if found <= _INT64_MAX else None
