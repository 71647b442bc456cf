"""Checkpoints: opening them, listing their tensors, reading blocks of their rows.

Formats are safetensors and PyTorch's zip files (one file, shards, an index) and NumPy's ``.npy`` and ``.npz``.
Nothing is ever unpickled, and every header is checked in full before a value is read.
"""

from rct_ray.checkpoint.catalogue import Checkpoint, FileInfo, TensorEntry
from rct_ray.checkpoint.errors import CheckpointError
from rct_ray.checkpoint.listing import find_checkpoints
from rct_ray.checkpoint.opening import open_checkpoint
from rct_ray.checkpoint.rows import RowReader

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "FileInfo",
    "RowReader",
    "TensorEntry",
    "find_checkpoints",
    "open_checkpoint",
]
