"""Reading a run back: the manifest first, then only what it lists."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rct_ray.results.columns import arrow_column
from rct_ray.results.errors import ResultsError
from rct_ray.results.files import file_sha256
from rct_ray.results.layout import FORMAT, MANIFEST, MARKER
from rct_ray.results.schema import TABLES
from rct_ray.results.tables import entries

_OUTPUT = {"path": str, "table": str, "rows": int, "bytes": int, "sha256": str}


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A finished run, as `open_run` returns it; tables are read when first asked for.

    Attributes
    ----------
    path : Path
        The run directory.
    manifest : mapping
        What ``manifest.json`` says.
    """

    path: Path
    manifest: Mapping[str, Any]
    _read: dict[str, pa.Table] = field(default_factory=dict, init=False)

    @property
    def levels(self) -> pa.Table:
        """Every level of every tower."""
        return self.table("levels")

    @property
    def tensors(self) -> pa.Table:
        """Every tensor of the checkpoints, skipped ones too."""
        return self.table("tensors")

    @property
    def shards(self) -> pa.Table:
        """Every shard of the plan, with who did it and how long it took."""
        return self.table("shards")

    @property
    def decoders(self) -> pa.Table:
        """Every matrix of the towers' decoders."""
        return self.table("decoders")

    @property
    def failed(self) -> Sequence[Mapping[str, str]]:
        """The checkpoints that could not be measured: path, error (its class) and reason of each."""
        failed: Sequence[Mapping[str, str]] = self.manifest.get("failed", [])
        return failed

    def table(self, name: str) -> pa.Table:
        """Return a table, its parts one after another as the manifest lists them.

        Parameters
        ----------
        name : str
            Name of the table. One of the four that every run has is empty if the run did not write it.
        """
        if name not in self._read:
            parts = [self._part(output) for output in self.manifest["outputs"] if output["table"] == name]
            if not parts and name not in TABLES:
                raise ResultsError(f"{self.path} has no table {name!r}")
            self._read[name] = _concatenated(self.path, name, parts)
        return self._read[name]

    def levels_of(
        self, scope: str | None = None, name: str | None = None, checkpoint: str | None = None
    ) -> pa.Table:
        """Return the levels of one scope, one name, one checkpoint, or any of these together.

        Parameters
        ----------
        scope, name, checkpoint : str, optional
            Values that the columns of these names must have.
        """
        table = self.levels
        wanted = {"scope": scope, "name": name, "checkpoint": checkpoint}
        return table.take(arrow_column(_matching(table, wanted), pa.int64()))

    def decoder(
        self, scope: str, name: str, level: int, kind: str, checkpoint: str | None = None
    ) -> npt.NDArray[np.float64]:
        """Return one matrix of a tower's decoders.

        Parameters
        ----------
        scope, name, level, kind
            Values of the columns of these names that pick the matrix.
        checkpoint : str, optional
            Label of the checkpoint; needed when the run is over several.

        Returns
        -------
        ndarray of shape (rows, columns)
            A copy, the caller's own.
        """
        table = self.decoders
        wanted = {"scope": scope, "name": name, "level": level, "kind": kind, "checkpoint": checkpoint}
        found = _matching(table, wanted)
        if len(found) != 1:
            said = ", ".join(f"{key}={value!r}" for key, value in wanted.items() if value is not None)
            raise ResultsError(f"{self.path}: {len(found) or 'no'} decoders with {said}, not one")
        row = table.slice(found[0], 1).combine_chunks()
        shape = row["rows"][0].as_py(), row["columns"][0].as_py()
        return entries(row["values"].chunk(0).flatten()).reshape(shape).copy()

    def __repr__(self) -> str:
        rows: dict[str, int] = {}
        for output in self.manifest["outputs"]:
            rows[output["table"]] = rows.get(output["table"], 0) + output["rows"]
        return f"Run({', '.join([repr(str(self.path)), *(f'{name}={n}' for name, n in rows.items())])})"

    def _part(self, output: Mapping[str, Any]) -> pa.Table:
        path = self.path / output["path"]
        try:
            table = _read_arrow(path) if path.suffix == ".arrow" else _read_parquet(path)
        except (OSError, pa.ArrowException) as error:
            raise ResultsError(f"cannot read {path}: {error}") from error
        expected = TABLES.get(output["table"], table.schema)
        if not table.schema.equals(expected):
            raise ResultsError(
                f"{path} has other columns than {output['table']} of this version; run it again"
            )
        if table.num_rows != output["rows"]:
            raise ResultsError(f"{path} has {table.num_rows} rows, the manifest says {output['rows']}")
        return table


def open_run(directory: str | os.PathLike[str], verify: bool = False) -> Run:
    """Open a finished run.

    Parameters
    ----------
    directory : str or path-like
        The run directory.
    verify : bool, default False
        Also compare every file's digest with the manifest's, which reads all of them.

    Returns
    -------
    Run
        The run; its tables are read when first asked for.

    Raises
    ------
    ResultsError
        The directory is not a finished run, or a file of it is missing or changed.
    """
    path = Path(directory)
    manifest = _manifest(path)
    seen: set[str] = set()
    for output in manifest["outputs"]:
        _check_output(path, output, seen, verify)
    return Run(path, manifest)


def _manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ResultsError(_why_no_run(directory)) from None
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is not JSON ({error}); run it again") from None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise ResultsError(f"{path} is not the manifest of a run")
    if manifest["format"] != FORMAT:
        raise ResultsError(
            f"{path} has format {manifest['format']!r}, this version reads {FORMAT}; "
            "open it with the version that wrote it"
        )
    outputs = manifest.get("outputs")
    if not isinstance(outputs, list) or not all(_is_output(output) for output in outputs):
        raise ResultsError(f"{path} does not list its outputs; run it again")
    return manifest


def _why_no_run(directory: Path) -> str:
    if not directory.exists():
        return f"no such directory: {directory}"
    if not directory.is_dir():
        return f"{directory} is a file, not the directory of a run"
    why = "an unfinished run" if (directory / MARKER).exists() else "not a finished run"
    return f"no {MANIFEST} in {directory}: {why}"


def _is_output(output: object) -> bool:
    return isinstance(output, dict) and all(type(output.get(key)) is kind for key, kind in _OUTPUT.items())


def _check_output(directory: Path, output: Mapping[str, Any], seen: set[str], verify: bool) -> None:
    relative = output["path"]
    path = directory / relative
    if not _stays_inside(directory, relative):
        raise ResultsError(
            f"{directory / MANIFEST} lists {relative!r}, which is outside the run or not plain"
        )
    if relative in seen:
        raise ResultsError(f"{directory / MANIFEST} lists {relative!r} twice")
    seen.add(relative)
    if not path.is_file():
        raise ResultsError(f"{path} is missing, the manifest lists it; run it again")
    size = path.stat().st_size
    if size != output["bytes"]:
        raise ResultsError(f"{path} has {size} bytes, the manifest says {output['bytes']}; run it again")
    if verify and file_sha256(path) != output["sha256"]:
        raise ResultsError(f"{path} is not what was written (its sha256 differs); run it again")


def _stays_inside(directory: Path, relative: str) -> bool:
    pure = PurePosixPath(relative)
    if (
        "\0" in relative
        or pure.is_absolute()
        or ".." in pure.parts
        or str(pure) != relative
        or relative == "."
    ):
        return False
    return (directory / pure).resolve().is_relative_to(directory.resolve())


def _concatenated(path: Path, name: str, parts: Sequence[pa.Table]) -> pa.Table:
    if not parts:
        return TABLES[name].empty_table()
    try:
        return pa.concat_tables(parts)
    except pa.ArrowException as error:
        raise ResultsError(f"{path}: the parts of {name!r} have different columns") from error


def _matching(table: pa.Table, wanted: Mapping[str, Any]) -> list[int]:
    """Return the rows whose columns have the wanted values; None wants nothing."""
    # In Python: the tables are short, and pyarrow.compute's scalars would import pandas.
    columns = {key: table[key].to_pylist() for key, value in wanted.items() if value is not None}
    return [row for row in range(table.num_rows) if all(columns[key][row] == wanted[key] for key in columns)]


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq  # not needed to read the room's schemas, so not on import

    # Not read_table: that imports pyarrow.dataset, for more than a whole run's worth of modules.
    with pq.ParquetFile(path) as file:
        return file.read()


def _read_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
