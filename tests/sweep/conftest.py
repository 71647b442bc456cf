"""Folders of step checkpoints, small enough to be measured in a moment."""

import numpy as np
import pytest
from safetensors.numpy import save_file


def weights(seed, rows=200):
    """Two widths and a bias, every checkpoint another."""
    rng = np.random.default_rng(seed)
    return {
        "a.weight": rng.standard_normal((rows, 64)).astype(np.float32),
        "b.weight": (rng.standard_normal((90, 32)) * seed).astype(np.float32),
        "bias": rng.standard_normal(64).astype(np.float32),
    }


def write_step(path, seed, metadata=None, rows=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights(seed, rows), path, metadata=metadata)
    return path


@pytest.fixture
def steps(tmp_path):
    """A folder of five steps whose names do not sort as their steps do."""
    folder = tmp_path / "runs"
    for seed, step in enumerate((900, 1400, 20, 100, 3), start=1):
        write_step(folder / f"step{step}.safetensors", seed)
    return folder
