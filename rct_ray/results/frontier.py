"""The table of a frontier: one Parquet file, whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rct_ray.results.errors import ResultsError
from rct_ray.results.files import replacing


def write_frontier(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a frontier as Parquet.

    Raises
    ------
    ResultsError
        If the file can't be written.
    """
    path = Path(path)
    try:
        with replacing(path) as file:
            pq.write_table(table, file, compression="zstd")
    except OSError as error:
        raise ResultsError(f"{path}: can't be written ({error.strerror or error})") from error
