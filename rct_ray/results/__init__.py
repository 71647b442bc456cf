"""Tables of a run: their schemas, writing them atomically, reading them back.

A run directory is finished exactly when it holds ``manifest.json``, which is written last. Readers trust
nothing else.
"""

from rct_ray.results.errors import ResultsError
from rct_ray.results.files import file_sha256
from rct_ray.results.layout import is_run
from rct_ray.results.read import Run, open_run
from rct_ray.results.schema import DECODERS, FRONTIER, LEVELS, SHARDS, TABLES, TENSORS
from rct_ray.results.units import UnitStore, unfinished
from rct_ray.results.write import RunWriter

__all__ = [
    "DECODERS",
    "FRONTIER",
    "LEVELS",
    "SHARDS",
    "TABLES",
    "TENSORS",
    "ResultsError",
    "Run",
    "RunWriter",
    "UnitStore",
    "file_sha256",
    "is_run",
    "open_run",
    "unfinished",
]
