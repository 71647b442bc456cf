"""Records of finished units: what an interrupted run leaves, so that the next need not do it again."""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rct_ray.results.errors import ResultsError
from rct_ray.results.files import replacing
from rct_ray.results.layout import IDENTITY, UNITS, is_run

_MAGIC = b"rct-ray unit 1\n"


class UnitStore:
    """Records of the finished units of one checkpoint, a file each.

    A record is written under a temporary name and renamed, and carries a CRC-32, so that a reader finds it
    whole or not at all, even after a power cut. It is not synced: losing one costs only its unit's work.

    Parameters
    ----------
    directory : Path
        Of this checkpoint's records; created with the first one.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, unit: int, record: bytes) -> None:
        """Keep a unit's record.

        Raises
        ------
        ResultsError
            It cannot be written.
        """
        path = self._path(unit)
        temporary = path.with_suffix(".tmp")
        try:
            if not self._directory.exists():
                self._directory.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(_MAGIC + zlib.crc32(record).to_bytes(4, "little"))
                file.write(record)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error

    def read(self, unit: int) -> bytes | None:
        """Return a unit's record; None if there is none, or it is not whole."""
        try:
            content = self._path(unit).read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + 4
        record = content[start:]
        whole = content[: len(_MAGIC)] == _MAGIC and content[len(_MAGIC) : start] == zlib.crc32(
            record
        ).to_bytes(4, "little")
        return record if whole else None

    def _path(self, unit: int) -> Path:
        return self._directory / f"{unit:08d}.unit"


def count_units(directory: Path) -> int:
    """How many records an unfinished run left in a run directory."""
    return sum(1 for _ in (directory / UNITS).glob("*/*.unit"))


def remove_units(directory: Path) -> None:
    """Remove all records, and what they were records of."""
    if (directory / UNITS).exists():
        shutil.rmtree(directory / UNITS, ignore_errors=True)
    if (directory / IDENTITY).exists():
        with contextlib.suppress(OSError):
            (directory / IDENTITY).unlink()


def keep_identity(directory: Path, identity: Mapping[str, Any]) -> None:
    """Say, beside the records, which run they are of; atomic and durable.

    Raises
    ------
    ResultsError
        It cannot be written.
    """
    path = directory / IDENTITY
    try:
        with replacing(path) as file:
            file.write(json.dumps(identity, indent=2).encode())
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error


def check_identity(directory: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to resume another run than the one that left the records.

    Raises
    ------
    ResultsError
        What the records are of is unknown, or differs; says where.
    """
    try:
        before = json.loads((directory / IDENTITY).read_text())
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"cannot resume {directory}: {IDENTITY} is missing or broken; delete it"
        ) from error
    now = json.loads(json.dumps(identity))
    difference = _difference(before, now)
    if difference:
        raise ResultsError(f"cannot resume {directory}: {difference}; choose another --out or delete it")


def _difference(before: Any, now: Any, where: str = "") -> str | None:
    """The first place where two JSON values differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            found = _difference(before.get(key), now.get(key), f"{where} {key}".strip())
            if found:
                return found
        return None
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (left, right) in enumerate(zip(before, now, strict=True)):
            found = _difference(left, right, f"{where} {index}")
            if found:
                return found
        return None
    return None if before == now else f"{where} was {_short(before)}, is now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def unfinished(directory: str | os.PathLike[str]) -> int:
    """How many finished units an interrupted run left in a directory for `--resume`; 0 for anything else."""
    path = Path(directory)
    return count_units(path) if (path / IDENTITY).exists() and not is_run(path) else 0
