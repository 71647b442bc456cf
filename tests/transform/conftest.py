"""The slow way up a tower: every row encoded and decoded in float64, every figure from the rebuilt weights.

Nothing here is taken from the product: the stages are read, the bases built and the figures counted anew.
"""

import json
import math
import struct
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
import pytest
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from rct_ray.transform.basis import random_basis
from rct_ray.transform.encode import Encoder
from rct_ray.transform.moments import merge_all
from rct_ray.transform.stages import FixedStage
from rct_ray.transform.tower import tower
from rct_ray.transform.tower_language import parse_tower


@dataclass
class SlowLevel:
    n_components: int
    params: int
    codes: np.ndarray
    decoded: np.ndarray
    sse: float
    sse_prev: float
    sst_prev: float
    participation_ratio: float | None = None
    n_keep: int | None = None
    # How the input of a PCA spreads: shares of the variance kept by 1, 2, ... components; scatter over energy.
    shares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    spread: float = 1.0


def gaussian_rows(width, count):
    rows = np.empty((count, width))
    for k in range(count):
        centre = k * (width - 1) / (count - 1) if count > 1 else 0.0
        for j in range(width):
            rows[k, j] = math.exp(-((j - centre) ** 2) / (2 * (width / count) ** 2))
    return rows


def dct_rows(width, count):
    rows = np.empty((count, width))
    for k in range(count):
        for j in range(width):
            rows[k, j] = math.cos(math.pi * k * (2 * j + 1) / (2 * width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def haar_rows(width, count):
    rows, intervals = [np.ones(width)], [(0, width)]
    while len(rows) < count:
        halves = []
        for start, stop in sorted(intervals, key=lambda i: (i[0] - i[1], i[0])):
            if stop - start > 1:
                middle = start + math.ceil((stop - start) / 2)
                step = np.zeros(width)
                step[start:middle] = 1 / (middle - start)
                step[middle:stop] = -1 / (stop - middle)
                rows.append(step)
                halves += [(start, middle), (middle, stop)]
        intervals = halves
    rows = np.array(rows[:count])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def orthonormal_rows(rows):
    """Gram-Schmidt, twice over, so that rounding does not show."""
    done = []
    for row in rows:
        for _ in range(2):
            for other in done:
                row = row - (row @ other) * other
            row = row / np.linalg.norm(row)
        done.append(row)
    return np.array(done)


def upright(components):
    """The largest-magnitude entry of each component positive."""
    return np.array([row if row[np.argmax(np.abs(row))] >= 0 else -row for row in components])


def random_rows(width, count):
    """Which directions is the product's choice; that they are orthonormal and unmoved is tested."""
    return random_basis(width, count).frame.T


FUNCTIONS = {"gaussian": gaussian_rows, "dct": dct_rows, "haar": haar_rows, "random": random_rows}


def read_tower(text):
    stages = []
    for part in text.split(" > "):
        name, _, value = part.partition("(")
        stages.append((name, float(value[:-1]) if value else None))
    return stages


def principal(codes):
    """Components and eigenvalues of the centred scatter, by scikit-learn's full SVD."""
    rows, size = codes.shape
    if rows == 1:
        return np.eye(size), np.zeros(size)
    if not np.any(codes - codes.mean(axis=0)):
        return np.eye(size), np.zeros(size)
    fitted = PCA(svd_solver="full").fit(codes)
    eigenvalues = np.zeros(size)
    eigenvalues[: len(fitted.singular_values_)] = fitted.singular_values_**2
    return upright(fitted.components_), eigenvalues


def slow_stage(codes, name, value, metric):
    """One stage on codes: new codes, decoder, offset, parameters of the decoder, notes on a PCA."""
    size = codes.shape[1]
    if name == "pca":
        components, eigenvalues = principal(codes)
        total, kept = eigenvalues.sum(), 1
        while total > 0 and eigenvalues[:kept].sum() < value * total:
            kept += 1
        decoder, mean = components[:kept], codes.mean(axis=0)
        notes = {
            "n_keep": kept,
            "participation_ratio": total**2 / np.sum(eigenvalues**2) if total > 0 else None,
            "shares": np.cumsum(eigenvalues) / total if total > 0 else np.zeros(0),
            "spread": total / np.sum(codes**2) if total > 0 else 0.0,
        }
        return (codes - mean) @ decoder.T, decoder, mean, decoder.size + size, notes
    count = min(int(value) if value else max(1, round(size / 32)), size)
    if name == "svd":
        decoder = upright(np.linalg.svd(codes, full_matrices=True)[2][:count])
        return codes @ decoder.T, decoder, np.zeros(size), decoder.size, {}
    functions = FUNCTIONS[name](size, count)
    if metric == "amplitude":
        return np.linalg.lstsq(functions.T, codes.T)[0].T, functions, np.zeros(size), 0, {}
    decoder = orthonormal_rows(functions)
    return codes @ decoder.T, decoder, np.zeros(size), 0, {}


def _slow_tower(rows, text, metric="isometric"):
    rows = np.asarray(rows, dtype=np.float64)
    levels, decoders, below, charged = [], [], rows, 0
    for name, value in read_tower(text):
        codes, decoder, offset, charge, notes = slow_stage(below, name, value, metric)
        decoders.append((decoder, offset))
        charged += charge
        decoded = codes
        for matrix, shift in reversed(decoders):
            decoded = decoded @ matrix + shift
        levels.append(
            SlowLevel(
                n_components=codes.shape[1],
                params=codes.size + charged,
                codes=codes,
                decoded=decoded,
                sse=np.sum((rows - decoded) ** 2),
                sse_prev=np.sum((below - (codes @ decoder + offset)) ** 2),
                sst_prev=np.sum(below**2),
                **notes,
            )
        )
        below = codes
    return levels


def _ascend(rows, text, metric="isometric", seed=(0,), blocks=1, summary="moments"):
    """The product's way: moments of blocks of rows, merged, climbed."""
    stages, width = parse_tower(text), rows.shape[1]
    basis = stages[0].basis(width) if isinstance(stages[0], FixedStage) else None
    encoder = Encoder(basis.frame if basis else None, columns=True, summary=summary)
    moments = merge_all(encoder.encode(block) for block in np.array_split(rows, blocks) if len(block))
    return tower(moments, width, stages, metric, seed, basis)


def _assert_levels(levels, slow, rows, tolerance=1e-9):
    """Every figure of every level, SSE to `tolerance` of SST."""
    sst, centred = np.sum(rows**2), np.sum((rows - rows.mean()) ** 2)
    assert len(levels) == len(slow) + 1
    assert (levels[0].sse, levels[0].params, levels[0].r2_prev) == (0, rows.size, 1)
    for below, level, want in zip(levels, levels[1:], slow, strict=False):
        where = f"level {level.level}, {level.stage}"
        assert level.n_components == want.n_components, where
        assert level.n_keep == want.n_keep, where
        assert level.params == want.params, where
        assert level.weights == rows.size, where
        assert level.cumulative_ratio == pytest.approx(rows.size / want.params, rel=1e-15), where
        assert level.level_ratio == pytest.approx(below.params / level.params, rel=1e-15), where
        assert level.sst == pytest.approx(sst, rel=1e-12), where
        assert level.sst_centered == pytest.approx(centred, rel=1e-9, abs=1e-13 * sst), where
        assert level.sse == pytest.approx(want.sse, rel=0, abs=tolerance * sst), where
        if sst > 0:
            assert level.r2 == pytest.approx(1 - want.sse / sst, abs=tolerance), where
        if centred > 1e-3 * sst:
            within = tolerance * sst / centred
            assert level.r2_centered == pytest.approx(1 - want.sse / centred, abs=within), where
        if want.sst_prev > 1e-6 * sst:
            within = tolerance * max(1, sst / want.sst_prev)
            assert level.r2_prev == pytest.approx(1 - want.sse_prev / want.sst_prev, abs=within), where
        if want.participation_ratio is None:
            assert level.participation_ratio is None, where
        else:
            within = tolerance + 1e-14 / want.spread
            assert level.participation_ratio == pytest.approx(want.participation_ratio, rel=within), where


def read_bfloat16(path):
    """The matrices of a safetensors file of bfloat16, by hand."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    matrices = {}
    for name, entry in header.items():
        if name != "__metadata__" and len(entry["shape"]) == 2:
            start, stop = entry["data_offsets"]
            bits = np.frombuffer(data[start:stop], "<u2").astype(np.uint32) << 16
            matrices[name] = bits.view(np.float32).reshape(entry["shape"])
    return matrices


@pytest.fixture(scope="module", autouse=True)
def _one_blas_thread():
    """As in a worker; and matrices this small are slower on many threads."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def slow_tower():
    return _slow_tower


@pytest.fixture(scope="session")
def ascend():
    return _ascend


@pytest.fixture(scope="session")
def assert_levels():
    return _assert_levels


@pytest.fixture(scope="session")
def slow_functions():
    return FUNCTIONS


@pytest.fixture(scope="session")
def trained():
    """Matrices of a small trained GPT, float32, by name."""
    return read_bfloat16(files("rct_ray") / "data" / "tiny-step02500.safetensors")


@pytest.fixture(scope="session")
def coloured():
    """Make rows whose columns correlate and have a mean, so that no figure is trivial."""

    def make(rows, width, seed=0):
        generator = np.random.default_rng(seed)
        mixing = generator.standard_normal((width, width)) / (1 + np.arange(width))[:, None]
        smooth = np.cumsum(generator.standard_normal((rows, width)) @ mixing, axis=1)
        return 0.01 * (smooth + generator.standard_normal((rows, width)) + 0.3)

    return make
