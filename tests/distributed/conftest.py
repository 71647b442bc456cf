"""An estimator whose actors stay from test to test; the Ray that it joins is in tests/conftest.py."""

import numpy as np
import pytest

from rct_ray.engine.distributed_pca import DistributedPCA


@pytest.fixture(scope="module")
def two_workers(ray_cluster):
    with DistributedPCA(n_workers=2) as pca:
        yield pca


@pytest.fixture
def pca(two_workers):
    """An estimator on two workers, who stay from test to test unless it is closed."""
    return two_workers.set_params(n_components=None, threshold=None, method="auto", random_state=0)


@pytest.fixture
def cut_rows():
    """Cut a matrix into blocks of these heights; the last block takes what is left."""

    def cut(X, *heights):
        ends = np.minimum(np.cumsum(heights), len(X))
        return np.split(X, ends)

    return cut
