"""Where things lie in a run directory, and which of its files are a run's own."""

import hashlib
import os
import re
from pathlib import Path

MANIFEST = "manifest.json"
MARKER = ".rct-ray-unfinished"
# What an unfinished run leaves for --resume: records of its finished units, and which run they are of.
UNITS = "units"
IDENTITY = "unfinished.json"
FORMAT = 1

# Decoders and amplitudes are arrays to map into memory: Arrow files. The rest are tables to query: Parquet.
SUFFIXES = {
    "levels": ".parquet",
    "tensors": ".parquet",
    "shards": ".parquet",
    "decoders": ".arrow",
    "amplitudes": ".arrow",
}

_TABLE_FILE = re.compile(rf"({'|'.join(SUFFIXES)})\.(parquet|arrow)(\.tmp)?|manifest\.json\.tmp")
_PART_FILE = re.compile(r".+\.(parquet|arrow)(\.tmp)?")


def is_run(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds a finished run: its manifest is written last."""
    return (Path(directory) / MANIFEST).exists()


def part_name(label: str) -> str:
    """Return a file name for a checkpoint's label: itself if that is plain, else a plain one with a digest.

    The digest keeps labels apart that differ only in what a file name cannot hold.
    """
    plain = re.sub(r"[^A-Za-z0-9._=+-]", "_", label).lstrip(".")[:100]
    if plain and plain == label:
        return plain
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain or 'part'}-{digest}"


def table_path(table: str, part: str | None) -> str:
    """Return the path of a table's file (one part of it, if given), relative to the run directory."""
    suffix = SUFFIXES[table]
    return f"{table}{suffix}" if part is None else f"{table}/{part_name(part)}{suffix}"


def remains(directory: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """List what an unfinished run left in a directory.

    Returns
    -------
    files, directories, foreign : list of Path
        Files and directories that a run names, and whatever else is there. Links are never followed.
    """
    files: list[Path] = []
    directories: list[Path] = []
    foreign: list[Path] = []
    for entry in os.scandir(directory):
        path = Path(entry.path)
        if entry.name in SUFFIXES and entry.is_dir(follow_symlinks=False):
            directories.append(path)
            for part in os.scandir(path):
                ours = _PART_FILE.fullmatch(part.name) and part.is_file(follow_symlinks=False)
                (files if ours else foreign).append(Path(part.path))
        elif _TABLE_FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            files.append(path)
        elif entry.name not in (MARKER, UNITS, IDENTITY, IDENTITY + ".tmp"):
            foreign.append(path)
    return sorted(files), sorted(directories), sorted(foreign)
