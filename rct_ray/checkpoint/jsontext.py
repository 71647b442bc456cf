"""JSON that comes from outside: no duplicate keys, no surprise exceptions."""

from __future__ import annotations

import json
from typing import Any

from rct_ray.checkpoint.errors import CheckpointError, quoted


class _DuplicateKeyError(ValueError):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(f"duplicate key {quoted(key)}")
            seen.add(key)
    return mapping


def _encodable(parsed: object) -> bool:
    waiting = [parsed]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting.extend(node.keys())
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, str):
            try:
                node.encode("utf-8")
            except UnicodeEncodeError:
                return False
    return True


def parse_object(raw: bytes, where: str) -> dict[str, Any]:
    """Parse the bytes of one JSON object.

    Parameters
    ----------
    raw : bytes
        UTF-8 text.
    where : str
        What it is, for the message.

    Returns
    -------
    dict
        The object; every key and string in it can be encoded as UTF-8.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise CheckpointError(f"{where} is not UTF-8 at byte {fault.start}; save it anew") from None
    try:
        parsed = json.loads(text, object_pairs_hook=_unique_keys)
    except _DuplicateKeyError as fault:
        raise CheckpointError(f"{where} has a {fault}; save it anew") from None
    except RecursionError:
        raise CheckpointError(f"{where} is JSON nested too deeply; save it anew") from None
    except ValueError as fault:
        raise CheckpointError(f"{where} is not JSON: {fault}; save it anew") from None
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{where} is not a JSON object; save it anew")
    # Half a surrogate pair can only come from an escape; it is no character and no table could hold it.
    if "\\u" in text and not _encodable(parsed):
        raise CheckpointError(f"{where} has half a surrogate pair in a name; save it anew")
    return parsed
