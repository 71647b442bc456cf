"""Writing a run: whole files, the manifest last, and nothing left behind when it fails."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa

from rct_ray.results.claim import Claim
from rct_ray.results.errors import ResultsError, system_failed
from rct_ray.results.files import file_sha256, replacing, sync_directory
from rct_ray.results.layout import FORMAT, MANIFEST, SUFFIXES, UNITS, table_path
from rct_ray.results.tables import TableLike, as_table
from rct_ray.results.units import UnitStore, check_identity, count_units, keep_identity, remove_units


class RunWriter:
    """Write the tables of one run into a directory of its own.

    A context manager. The directory is claimed on entering; leaving without `commit`, for whatever
    reason, puts it back as it was. A killed process leaves a directory that no reader takes for a run
    and that the next writer may use.

    Parameters
    ----------
    directory : str or path-like
        Where the run goes: a path that does not exist yet, or an empty directory.
    identity : mapping, optional
        What the run is of, of JSON types: its settings and inputs. With it the run keeps records of finished
        units (`units`), which an interrupt leaves in place.
    resume : bool
        Go on with the units that an unfinished run of the same identity left in the directory.

    Raises
    ------
    ResultsError
        On entering: the directory holds a run or anything else, or cannot be created or written; or it holds
        an unfinished run, and `resume` was not asked for or that run was of something else.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        identity: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        # Absolute, so that a change of working directory does not split a run in two.
        self.path = Path(directory).absolute()
        self._identity = identity
        self._claim = Claim(self.path, resume=resume)
        self._outputs: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        self._claim.take()
        try:
            if self._identity is not None:
                if count_units(self.path):
                    check_identity(self.path, self._identity)
                else:
                    remove_units(self.path)
                    keep_identity(self.path, self._identity)
        except BaseException:
            self._let_go(keep=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The manifest itself, not a flag, tells a finished run: an interrupt may fall right behind it.
        # Only this writer can have put it there.
        if (self.path / MANIFEST).exists():
            self._finish()
        else:
            self._let_go(keep=error is None or _may_go_on(error))

    def __repr__(self) -> str:
        return f"RunWriter({str(self.path)!r})"

    def write_table(self, name: str, rows: TableLike, schema: pa.Schema, part: str | None = None) -> Path:
        """Write one table, or one checkpoint's part of it.

        Parameters
        ----------
        name : str
            The table: levels, tensors, shards, decoders or amplitudes. The last two are Arrow files, the
            others Parquet.
        rows : pyarrow.Table, mapping of columns, or sequence of row mappings
            What to write. A column that may be null may be left out.
        schema : pyarrow.Schema
            Schema to hold the rows to.
        part : str, optional
            Label of the checkpoint, for a run over several: the file is then ``NAME/PART.parquet``.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        ResultsError
            The rows break the schema, hold a NaN, or the file cannot be written.
        """
        with self.open_table(name, schema, part) as table:
            table.append(rows)
            return table.path

    @contextlib.contextmanager
    def open_table(self, name: str, schema: pa.Schema, part: str | None = None) -> Iterator["TableWriter"]:
        """Write one table piece by piece; it is in the run once the block ends without an error.

        Parameters
        ----------
        name, schema, part
            As for `write_table`.

        Yields
        ------
        TableWriter

        Raises
        ------
        ResultsError
            As for `write_table`.
        """
        self._require_claim()
        if name not in SUFFIXES:
            raise ResultsError(f"no table is called {name!r}; there are {', '.join(SUFFIXES)}")
        relative = table_path(name, part)
        if relative in self._outputs:
            raise ResultsError(f"{relative} is written already")
        path = self.path / relative
        callers: list[BaseException] = []
        with _named(path, but=callers):
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as file:
                table = TableWriter(name, schema, path, file)
                try:
                    yield table
                except BaseException as error:
                    callers.append(error)
                    # Its file goes away; a writer that was not closed would complain about that later.
                    with contextlib.suppress(Exception):
                        table.close()
                    raise
                table.close()
            self._outputs[relative] = {
                "path": relative,
                "table": name,
                "rows": table.rows,
                "bytes": path.stat().st_size,
                "sha256": file_sha256(path),
            }

    def commit(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, last and atomically: from here on the directory is a run.

        Parameters
        ----------
        manifest : mapping
            What to say of the run, of JSON types. ``format`` and ``outputs`` are added.

        Raises
        ------
        ResultsError
            The manifest is not JSON, or cannot be written.
        """
        self._require_claim()
        text = _manifest_text(manifest, list(self._outputs.values()))
        path = self.path / MANIFEST
        try:
            with _named(path):
                # What the manifest lists must be on disk before the manifest is.
                for directory in {self.path, *((self.path / relative).parent for relative in self._outputs)}:
                    sync_directory(directory)
                self._claim.sync_parents()
                with replacing(path) as file:
                    file.write(text.encode())
                sync_directory(self.path)
        except ResultsError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        self._finish()

    def units(self, checkpoint: str) -> UnitStore:
        """Records of the finished units of one checkpoint, by a plain name that no other has."""
        self._require_claim()
        return UnitStore(self.path / UNITS / checkpoint)

    def _let_go(self, *, keep: bool) -> None:
        if keep and count_units(self.path):
            self._claim.leave()
        else:
            if self._claim.held:
                remove_units(self.path)
            self._claim.undo()

    def _finish(self) -> None:
        remove_units(self.path)
        # A marker beside a manifest misleads nobody; that it cannot be removed is no reason to fail.
        with contextlib.suppress(OSError):
            self._claim.release()

    def _require_claim(self) -> None:
        if not self._claim.held:
            raise ResultsError(f"{self.path} is not open for writing")


def _may_go_on(error: BaseException) -> bool:
    """Whether what stopped a run may be mended, so that its finished units are worth keeping.

    A ValueError says that the input is wrong, and the same input will be wrong again, unless the system is
    behind it (a full disk).
    """
    return not isinstance(error, ValueError) or system_failed(error)


@contextlib.contextmanager
def _named(path: Path, but: Sequence[BaseException] = ()) -> Iterator[None]:
    """Say which file could not be written, unless the error is one of those that had nothing to do with it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if any(error is other for other in but):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ResultsError(f"cannot write {path}: {reason}") from error


def _manifest_text(manifest: Mapping[str, Any], outputs: list[dict[str, Any]]) -> str:
    for reserved in ("format", "outputs"):
        if reserved in manifest:
            raise ResultsError(f"manifest: {reserved!r} is the writer's to say")
    document = {"format": FORMAT, **manifest, "outputs": outputs}
    try:
        return json.dumps(document, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ResultsError(f"manifest: {error}") from error


class TableWriter:
    """Appends pieces to one table: row groups of a Parquet file, record batches of an Arrow file."""

    def __init__(self, name: str, schema: pa.Schema, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.rows = 0
        self._name = name
        self._schema = schema
        # Arrow files stay uncompressed, so that readers can map them.
        if path.suffix == ".arrow":
            self._writer = pa.ipc.new_file(file, schema)
        else:
            import pyarrow.parquet as pq  # not needed to read the room's schemas, so not on import

            self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def append(self, rows: TableLike) -> None:
        """Add some rows.

        Raises
        ------
        ResultsError
            They break the schema, hold a NaN, or cannot be written.
        """
        table = as_table(self._name, rows, self._schema)
        if table.num_rows:
            with _named(self.path):
                self._writer.write_table(table)
            self.rows += table.num_rows

    def close(self) -> None:
        """Write what a reader needs to find the pieces."""
        self._writer.close()
