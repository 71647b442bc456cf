"""The rows that fits are compared on: 512 of the trained checkpoint, the ones that `--sample-rows 512` draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks._files import PHOTONIC, noise, read_plainly

WIDTH, SAMPLE = 256, 512


def sample_rows(count: int = SAMPLE) -> NDArray[np.float64]:
    """The first of 512 rows drawn from the matrices of 256 columns without `pos_emb`; noise if there is no file."""
    if not PHOTONIC.exists():
        return noise(count * WIDTH).reshape(count, WIDTH).astype(np.float64)
    matrices = sorted(read_plainly(PHOTONIC).items())
    rows = np.vstack([W for name, W in matrices if W.shape[1] == WIDTH and not name.startswith("pos_emb")])
    return rows[np.random.default_rng(7).choice(len(rows), SAMPLE, replace=False)[:count]]
