"""Rows of every table, as an engine would make them."""

import numpy as np
import pytest


def level(**changes):
    row = {
        "checkpoint": "step00010",
        "step": 10,
        "scope": "tensor",
        "name": "blocks.0.mlp.weight",
        "width": 256,
        "level": 1,
        "stage": "gaussian",
        "rows": 512,
        "weights": 131_072,
        "n_components": 8,
        "params": 4_096,
        "side_bits": 0.0,
        "level_ratio": 32.0,
        "cumulative_ratio": 32.0,
        "participation_ratio": 1.5,
        "n_keep": 6,
        "threshold": 0.95,
        "r2_prev": 0.0279369,
        "r2": 0.0279369,
        "r2_centered": 0.0279,
        "null_r2": 0.03125,
        "null_participation_ratio": 7.9,
        "lift": -0.0034,
        "svd_bound_r2": 0.2,
        "sse": 9.7,
        "sst": 10.0,
        "sqnr_db": 0.12,
        "relative_error": 0.98,
        "pca_method": "eigh",
        "bits_per_weight": 3.4,
        "fixed_point": True,
        "incompressible": False,
        "code_bits": 1234.5,
        "converged": 0.75,
    }
    return row | changes


def tensor(**changes):
    row = {
        "checkpoint": "step00010",
        "name": "conv.weight",
        "file": "model.safetensors",
        "dtype": "BF16",
        "shape": [64, 3, 7, 7],
        "bytes": 18_816,
        "rows": 64,
        "width": 147,
        "mean": 0.0,
        "std": 1.0,
        "min": -3.0,
        "max": 3.0,
        "nan_count": 0,
        "inf_count": 0,
        "norm": 97.0,
        "stable_rank": 20.0,
        "status": "used",
    }
    return row | changes


def shard(**changes):
    row = {
        "checkpoint": "step00010",
        "shard": 0,
        "tensor": "conv.weight",
        "row_start": 0,
        "row_stop": 64,
        "rows": 64,
        "bytes": 18_816,
        "seconds_read": 0.01,
        "seconds_encode": 0.02,
        "seconds": 0.03,
        "worker": "0",
        "attempt": 1,
    }
    return row | changes


def decoder(matrix=((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), **changes):
    matrix = np.asarray(matrix, dtype=np.float64)
    row = {
        "checkpoint": "step00010",
        "scope": "tensor",
        "name": "conv.weight",
        "width": 147,
        "level": 2,
        "stage": "pca(0.95)",
        "kind": "components",
        "rows": matrix.shape[0],
        "columns": matrix.shape[1],
        "values": matrix.ravel(),
    }
    return row | changes


@pytest.fixture
def make():
    """Makers of one row of each table, by the table's name."""
    return {"levels": level, "tensors": tensor, "shards": shard, "decoders": decoder}


@pytest.fixture
def write(make):
    """Write a small committed run, with all four tables, and return its directory."""
    from rct_ray.results import TABLES, RunWriter

    def write_run(directory):
        with RunWriter(directory) as run:
            for name, schema in TABLES.items():
                run.write_table(name, [make[name]()], schema)
            run.commit({"version": "0.1.0"})
        return directory

    return write_run
