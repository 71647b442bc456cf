"""Weights rebuilt from a run: at any level, checked against the tables, and what the code takes in bytes."""

from rct_ray.rebuild.checking import TensorCheck, Verification, verify
from rct_ray.rebuild.errors import RebuildError
from rct_ray.rebuild.sizes import CodeSize, code_sizes
from rct_ray.rebuild.weights import reconstruct

__all__ = [
    "CodeSize",
    "RebuildError",
    "TensorCheck",
    "Verification",
    "code_sizes",
    "reconstruct",
    "verify",
]
