"""Every method gives the table that scikit-learn's full SVD gives, from blocks of any kind."""

import copy
import pickle
import time
from functools import partial

import ml_dtypes
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_low_rank_matrix
from sklearn.decomposition import PCA

from rct_ray.engine.distributed_pca import DistributedPCA

pytestmark = pytest.mark.ray

TOLERANCE = {"tsqr": 1e-12, "gather": 1e-12, "moments": 1e-7, "randomized": 1e-12}
EXACT = ("moments", "tsqr", "gather", "randomized")
HEIGHTS = (7, 0, 1, 1, 12)


def scaled(rows, width, smallest=1e-3, seed=0):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((width, width))).Q
    return rng.standard_normal((rows, width)) * np.geomspace(1, smallest, width) @ turn


def constant_columns():
    X = scaled(200, 8)
    X[:, [0, 3]] = 7.0
    return X


MATRICES = {
    "tall": lambda: scaled(700, 20),
    "wide": lambda: scaled(30, 100),
    "square": lambda: scaled(40, 40),
    "rank deficient": lambda: scaled(300, 4) @ np.random.default_rng(1).standard_normal((4, 12)),
    "constant columns": constant_columns,
    "one column": lambda: scaled(50, 1),
    "mean 1e4": lambda: scaled(300, 10) + 1e4,
    "mean 1e8": lambda: scaled(300, 10, smallest=0.1) + 1e8,
    "drift": lambda: scaled(300, 10) + np.arange(300)[:, None] * np.linspace(-1, 1, 10),
    "float32": lambda: scaled(300, 10).astype(np.float32),
    "float16": lambda: scaled(300, 10, smallest=0.1).astype(np.float16),
}


def assert_agrees(pca, X, tolerance):
    """Singular values to the tolerance, and the components where their singular values stand apart."""
    reference = PCA(svd_solver="full").fit(X.astype(np.float64))
    wanted, found = reference.singular_values_, pca.singular_values_
    assert len(found) == pca.n_components_ == len(pca.components_)
    top, wanted = wanted[0], wanted[: len(found)]
    assert np.abs(found - wanted).max() <= tolerance * top
    gaps = np.abs(np.subtract.outer(wanted, reference.singular_values_))
    gaps[np.arange(len(found)), np.arange(len(found))] = np.inf
    gaps = np.minimum(gaps.min(axis=1), top)
    for mine, theirs, gap, value in zip(pca.components_, reference.components_, gaps, wanted, strict=False):
        if gap > 1e-5 * top and value > 1e-5 * top:
            alike = mine @ theirs
            assert np.linalg.norm(mine - alike * theirs) <= tolerance * top / gap
            if np.diff(np.sort(np.abs(theirs))[-2:], prepend=0)[-1] > 1e-3:
                assert alike > 0
    np.testing.assert_allclose(pca.mean_, reference.mean_, rtol=1e-14, atol=1e-13)
    ratios = reference.explained_variance_ratio_[: len(found)]
    np.testing.assert_allclose(pca.explained_variance_ratio_, ratios, rtol=0, atol=2 * tolerance)
    np.testing.assert_allclose(
        pca.explained_variance_, wanted**2 / max(len(X) - 1, 1), rtol=0, atol=2 * tolerance * top**2
    )
    assert pca.n_features_in_ == X.shape[1]
    assert pca.n_samples_seen_ == len(X)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("name", list(MATRICES))
def test_same_as_a_full_svd(pca, cut_rows, name, method):
    X = MATRICES[name]()
    pca.set_params(method=method).fit(cut_rows(X, *HEIGHTS))
    assert pca.method_ == method
    assert pca.n_components_ == min(X.shape)
    assert_agrees(pca, X, TOLERANCE[method])


@pytest.mark.parametrize("method", ["tsqr", "gather"])
def test_nine_orders_of_magnitude(pca, cut_rows, method):
    # scikit-learn #29534: the covariance loses the small components, and whitened scores explode.
    X = make_low_rank_matrix(1000, 10, effective_rank=2, tail_strength=0, random_state=0)
    pca.set_params(method=method).fit(cut_rows(X, 300, 1, 400))
    reference = PCA(svd_solver="full").fit(X)
    np.testing.assert_allclose(pca.singular_values_, reference.singular_values_, rtol=1e-5)
    whitened = np.concatenate(list(pca.transform())) / np.sqrt(pca.explained_variance_)
    np.testing.assert_allclose(np.abs(whitened).max(), 3.9, atol=0.3)


def test_geometric_spectrum(pca, cut_rows):
    rng = np.random.default_rng(0)
    U = rng.standard_normal((2000, 10))
    U = np.linalg.qr(U - U.mean(axis=0)).Q
    values = np.geomspace(1, 1e-9, 10)
    X = U * values @ np.linalg.qr(rng.standard_normal((10, 10))).Q
    pca.set_params(method="tsqr").fit(cut_rows(X, 500, 3, 900))
    np.testing.assert_allclose(pca.singular_values_, values, rtol=1e-5)


@pytest.mark.parametrize("method", ["moments", "tsqr", "randomized"])
def test_counts_and_shares(pca, method):
    X = scaled(600, 60, smallest=1e-4)
    exact = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    pca.set_params(method=method, n_components=5).fit(X)
    assert pca.components_.shape == (5, 60)
    np.testing.assert_allclose(pca.singular_values_, exact[:5], rtol=1e-5)
    np.testing.assert_allclose(pca.explained_variance_ratio_, (exact**2 / (exact**2).sum())[:5], rtol=1e-5)
    wanted = int(np.searchsorted(np.cumsum(exact**2), 0.9 * (exact**2).sum())) + 1
    pca.set_params(n_components=None, threshold=0.9).fit(X)
    assert pca.n_components_ == wanted
    assert pca.explained_variance_ratio_.sum() >= 0.9
    assert pca.explained_variance_ratio_[:-1].sum() < 0.9


def test_random_subspace_of_wide_rows(pca, cut_rows):
    X = scaled(500, 300, smallest=1e-12)
    exact = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    blocks = cut_rows(X, *HEIGHTS, 200)
    pca.set_params(method="randomized", n_components=10).fit(blocks)
    np.testing.assert_allclose(pca.singular_values_, exact[:10], rtol=1e-9)
    first = pca.components_.tobytes()
    assert pca.fit().components_.tobytes() == first
    assert pca.set_params(random_state=1).fit().components_.tobytes() != first
    pca.set_params(n_components=None, threshold=0.95).fit()
    assert pca.n_components_ == np.searchsorted(np.cumsum(exact**2), 0.95 * (exact**2).sum()) + 1


@pytest.mark.parametrize("method", EXACT)
def test_nothing_varies(pca, method):
    pca.set_params(method=method).fit([np.full((5, 3), 2.5), np.full((4, 3), 2.5)])
    np.testing.assert_array_equal(pca.singular_values_, np.zeros(3))
    np.testing.assert_array_equal(pca.explained_variance_ratio_, np.zeros(3))
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(3), atol=1e-14)
    pca.set_params(n_components=1).fit([np.array([[1.0, 2.0]])])
    assert (pca.n_samples_seen_, pca.explained_variance_[0]) == (1, 0.0)
    np.testing.assert_array_equal(pca.mean_, [1.0, 2.0])


def test_auto_goes_by_dtype_and_width(pca):
    narrow = scaled(20, 4)
    assert pca.fit(narrow).method_ == "tsqr"
    assert pca.fit(narrow.astype(np.float32)).method_ == "moments"
    assert pca.fit(narrow.astype(np.float16)).method_ == "moments"
    assert pca.fit(narrow.astype(ml_dtypes.bfloat16)).method_ == "moments"
    assert pca.fit([narrow.astype(np.float32), narrow]).method_ == "tsqr"
    assert pca.fit((100 * narrow).astype(np.int32)).method_ == "tsqr"
    assert pca.fit(np.ones((3, 4097), dtype=np.float32)).method_ == "randomized"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16, np.int8, np.bool_])
@pytest.mark.parametrize("method", ["moments", "tsqr"])
def test_dtypes_are_taken_as_stored(pca, cut_rows, dtype, method):
    X = scaled(200, 6, smallest=0.1) * 20
    X = X > 0 if dtype is np.bool_ else X.astype(dtype)
    pca.set_params(method=method).fit(cut_rows(X, 50, 70))
    assert_agrees(pca, X, TOLERANCE[method])


def test_blocks_of_any_kind(ray_cluster, pca, cut_rows, tmp_path):
    X = scaled(300, 8)
    blocks = cut_rows(X, 40, 0, 1, 100)
    wanted = pca.fit(blocks).components_.tobytes()
    for index, block in enumerate(blocks):
        np.save(tmp_path / f"{index}.npy", block)
    files = [partial(np.load, tmp_path / f"{index}.npy") for index in range(len(blocks))]
    references = [ray_cluster.put(block) for block in blocks]

    @ray_cluster.remote
    def made(index):
        return np.load(tmp_path / f"{index}.npy")

    mixed = [blocks[0], references[1], files[2], files[3], made.remote(4)]
    ordered = [np.asfortranarray(block) for block in blocks]
    for kind in (files, references, mixed, (block for block in blocks), ordered):
        assert pca.fit(kind).components_.tobytes() == wanted
    every_other = np.zeros((300, 16))
    every_other[:, ::2] = X
    assert pca.fit(cut_rows(every_other[:, ::2], 40, 0, 1, 100)).components_.tobytes() == wanted


def test_blocks_keep_their_dtype_and_place(pca, cut_rows):
    pca.load([block.astype(np.float32) for block in cut_rows(scaled(60, 4), 10, 10, 10)])
    held = dict(pca._resident.map(lambda block: (block.dtype.str, len(block), __import__("os").getpid())))
    assert [held[index][:2] for index in range(4)] == [("<f4", 10)] * 3 + [("<f4", 30)]
    pids = [held[index][2] for index in range(4)]
    assert pids[0] == pids[2] != pids[1] == pids[3]


def test_one_blas_thread_a_worker(pca):
    def threads(block):
        from threadpoolctl import threadpool_info

        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    pca.load(scaled(10, 4))
    assert dict(pca._resident.map(threads)) == {0: {1}}


def test_equal_to_the_bit_for_any_number_of_workers(pca, cut_rows):
    X = scaled(4000, 50).astype(np.float32)
    blocks = cut_rows(X, 700, 1, 0, 900, 333, 333, 500)

    def late(block, seconds):
        import time

        time.sleep(seconds)
        return block

    # The first blocks arrive last.
    slow = [partial(late, block, 0.2 / (1 + index)) for index, block in enumerate(blocks)]
    pca.close()
    found = {}
    for workers in (1, 2, 3):
        with DistributedPCA(n_components=7, n_workers=workers) as fresh:
            for given in (blocks, slow):
                fresh.load(given)
                for method in EXACT:
                    fresh.set_params(method=method).fit()
                    scores = np.concatenate(list(fresh.transform()))
                    parts = (fresh.components_, fresh.singular_values_, fresh.mean_, scores)
                    found.setdefault(method, set()).add(b"".join(part.tobytes() for part in parts))
    assert {method: len(bits) for method, bits in found.items()} == dict.fromkeys(EXACT, 1)


def test_signs_are_stable_over_the_way_rows_are_cut(pca):
    X = scaled(300, 6)
    fitted = [pca.fit(np.split(X, range(size, 300, size))).components_ for size in range(20, 30)]
    for components in fitted[1:]:
        np.testing.assert_allclose(components, fitted[0], atol=1e-10)
    peaks = np.abs(fitted[0]).argmax(axis=1)
    assert (fitted[0][np.arange(6), peaks] > 0).all()


def test_scores(pca, cut_rows):
    X = scaled(300, 8) + 3
    blocks = cut_rows(X, *HEIGHTS)
    pca.set_params(n_components=8).fit(blocks)
    reference = PCA(svd_solver="full").fit_transform(X)
    resident = pca.transform()
    assert iter(resident) is resident
    found = list(resident)
    assert [len(block) for block in found] == [len(block) for block in blocks]
    np.testing.assert_allclose(np.concatenate(found), reference, atol=1e-12)
    np.testing.assert_allclose(pca.transform(X[:5]), reference[:5], atol=1e-12)
    given = list(pca.transform(blocks))
    np.testing.assert_allclose(np.concatenate(given), reference, atol=1e-12)
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(X)), X, atol=1e-12)
    whole = pca.fit_transform(X)
    assert isinstance(whole, np.ndarray)
    np.testing.assert_allclose(whole, reference, atol=1e-12)
    assert [len(block) for block in pca.fit_transform(blocks)] == [len(block) for block in blocks]


def test_a_matrix_is_cut_into_fixed_blocks(pca, monkeypatch):
    monkeypatch.setattr("rct_ray.engine.row_passes._BLOCK_BYTES", 64 * 8 * 10)
    X = scaled(333, 8)
    pca.load(X)
    assert [block.rows for block in pca._held] == [80, 80, 80, 80, 13]
    assert_agrees(pca.fit(), X, 1e-12)


def test_load_then_fit_twice(pca, cut_rows):
    X, Y = scaled(100, 5), scaled(80, 4, seed=2)
    pca.load(cut_rows(X, 30))
    first = pca.fit().components_.tobytes()
    assert pca.fit().components_.tobytes() == first
    assert_agrees(pca.load(cut_rows(Y, 5, 5, 5)).fit(), Y, 1e-12)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [20, 2950])
def test_not_finite(pca, cut_rows, method, bad, row):
    X = scaled(3000, 4).astype(np.float32)
    X[row, 2] = bad
    with pytest.raises(ValueError, match="block 2 holds NaN or infinity"):
        pca.set_params(method=method).fit(cut_rows(X, 10, 10))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([np.ones((3, 4)), np.ones((3, 4)), np.ones((2, 5))], "block 2 has 5 columns, block 0 has 4"),
        ([np.ones((3, 4)), np.ones((0, 5))], "block 1 has 5 columns"),
        ([np.ones((3, 4)), np.ones(4)], "block 1 has 1 dimensions, not 2"),
        ([np.ones((3, 4)), np.ones((3, 4), dtype=complex)], "block 1 holds complex128"),
        ([np.array([["a"]])], "block 0 holds <U1"),
        ([np.array([[None]], dtype=object)], "block 0 holds object"),
        ([np.array([["2020-01-01"]], dtype="M8[D]")], "block 0 holds datetime64"),
        ([], "nothing to fit"),
        ([np.ones((0, 4))], "nothing to fit"),
        ([np.ones((4, 0))], "nothing to fit"),
        (np.ones((0, 3)), "nothing to fit"),
    ],
)
def test_what_is_not_rows_of_one_matrix(pca, blocks, message):
    with pytest.raises(ValueError, match=message):
        pca.fit(blocks)
    with pytest.raises(ValueError, match="no blocks are loaded"):
        pca.fit()
    pca.fit(scaled(10, 3))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "qr"}, "method must be one of auto"),
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"threshold": 1.5}, "threshold must be above 0"),
        ({"n_components": 0}, "whole number from 1"),
        ({"n_components": 0.9}, "whole number from 1"),
        ({"n_components": 2, "threshold": 0.9}, "not both"),
        ({"n_components": 5}, r"n_components=5 exceeds min\(rows, K\) = 4"),
    ],
)
def test_parameters_out_of_range(pca, parameters, message):
    with pytest.raises(ValueError, match=message):
        pca.set_params(**parameters).fit(scaled(10, 4))


def test_what_a_callable_raises_is_raised(pca):
    def broken():
        raise FileNotFoundError("part7.npy")

    with pytest.raises(FileNotFoundError, match="part7"):
        pca.fit([np.ones((3, 4)), broken])


def test_scikit_learn_manners(pca):
    assert clone(DistributedPCA(3, threshold=None)).get_params()["n_components"] == 3
    pca.set_params(n_components=2).fit(scaled(20, 4))
    for other in (pickle.loads(pickle.dumps(pca)), copy.deepcopy(pca)):
        np.testing.assert_array_equal(other.transform(np.eye(4)), pca.transform(np.eye(4)))
        assert not hasattr(other, "_resident")
    assert "n_components=2" in repr(pca)
    fresh = clone(pca)
    assert not hasattr(fresh, "components_")
    with pytest.raises(Exception, match="not fitted"):
        fresh.transform()


def test_close_keeps_what_was_fitted_and_leaves_a_joined_ray(ray_cluster, pca):
    pca.close()
    X = scaled(20, 4)
    with DistributedPCA(n_workers=1) as pca:
        pca.fit(X)
        actor = pca._resident._actors[0]
    assert ray_cluster.is_initialized()
    with pytest.raises(ray_cluster.exceptions.RayActorError):
        _call_for_long(ray_cluster, actor)
    assert pca.transform(X).shape == (20, 4)
    with pytest.raises(ValueError, match="no blocks are loaded"):
        pca.transform()
    pca.close()
    assert pca.fit(X).n_samples_seen_ == 20
    pca.close()


def test_default_number_of_workers_is_that_of_free_cpus(pca):
    pca.close()
    with DistributedPCA() as fresh:
        fresh.fit([np.ones((2, 3))])
        assert 1 <= fresh._resident.workers <= 3
        assert len(fresh._resident._actors) == 1


def _call_for_long(ray, actor):
    for _ in range(300):
        ray.get(actor.forget.remote(), timeout=30)
        time.sleep(0.1)
