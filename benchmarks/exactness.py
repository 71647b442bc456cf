"""R2 from moments against R2 of the really rebuilt weights, in float64."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rct_ray
from benchmarks._files import noise, read_plainly
from benchmarks._rebuild import Array, Loss, rebuilt_losses
from benchmarks._table import Report, at_most
from rct_ray.config import RunConfig
from rct_ray.engine import plan
from rct_ray.transform.affine_code import Metric
from rct_ray.transform.stages import FixedStage

ALLOWED = 1e-9
SHIPPED = Path(rct_ray.__file__).parent / "data/tiny-step02500.safetensors"
TOWERS = (
    "gaussian > pca(0.95) > pca(0.95) > pca(0.95)",
    "dct > pca(0.95) > pca(0.9)",
    "haar > pca(0.95) > pca(0.9)",
    "random > pca(0.95) > pca(0.9)",
    "svd > pca(0.95) > pca(0.9)",
    "pca(0.95) > pca(0.9) > pca(0.8)",
    "gaussian(K=12, width=0.6) > dct(9) > haar(6) > svd(3)",
    "pca(0.5) > gaussian(K=6) > dct(3)",
    "gaussian > pca(0.95) > gaussian(axis=rows) > quantize(4)",
    "svd(8) > gaussian(axis=rows, order=svd) > pca(0.9) > quantize(3)",
)
METRICS: tuple[Metric, ...] = ("isometric", "amplitude")


def main() -> bool:
    sources = {"shipped": SHIPPED}
    with tempfile.TemporaryDirectory() as directory:
        for name, W in random_weights().items():
            sources[name] = Path(directory, f"{name}.npy")
            np.save(sources[name], W)
        report = Report(
            "R2 from moments against R2 of rebuilt weights: largest difference over metrics, levels, scopes",
            *("tower", "figures", *sources),
        )
        for tower in TOWERS:
            found = [list(differences(path, tower)) for path in sources.values()]
            shown = [f"{max(each):.0e}" if each else "" for each in found]
            worst = max(map(max, filter(None, found)))
            count = sum(map(len, found))
            report.add(tower, str(count), *shown, ratio=worst / ALLOWED, required=at_most(1))
    return report.show()


def random_weights() -> dict[str, NDArray[np.float32]]:
    """Just enough float32 weights each to be projected in float32.

    The fewer weights, the less rounding averages out, so these are the hardest that may take that path.
    """
    generator = np.random.default_rng(11)
    rows = plan._MANY_WEIGHTS // 256 + 3
    white = noise(rows * 256, seed=11).reshape(rows, 256)
    waves = np.cos(np.outer(generator.uniform(0, 2, rows), np.linspace(0, 3, 256))).astype(np.float32)
    return {
        "white": white,
        "mean": white + np.float32(0.03),
        "slight mean": white + np.float32(0.0008),
        "smooth": waves + 3 * white,
        "scaled rows": white * generator.lognormal(0, 1, (rows, 1)).astype(np.float32),
        "wide": noise(rows * 256, seed=12)[: rows // 4 * 1024].reshape(-1, 1024),
    }


def differences(path: Path, tower: str) -> Iterator[float]:
    """Of every r2 and r2_centered in the tables of a run."""
    matrices = read_plainly(path) if path.suffix == ".safetensors" else {path.stem: _loaded(path)}
    for metric in METRICS:
        config = RunConfig(tower=tower, metric=metric, svd_bound="never")
        if path.suffix == ".npy" and not isinstance(config.stages[0], FixedStage):
            return  # these keep the columns' moments, always in float64
        references = _references(matrices, config)
        with tempfile.TemporaryDirectory() as out:
            rows = rct_ray.run(path, out, config, engine="inprocess").levels.to_pylist()
        above = [row for row in rows if row["level"]]
        assert len(above) == sum(map(len, references.values()))
        for row in above:
            yield from _row_differences(row, references[row["scope"], row["name"]][row["level"] - 1])


def _loaded(path: Path) -> Array:
    return np.asarray(np.load(path), np.float64)


def _references(matrices: Mapping[str, Array], config: RunConfig) -> dict[tuple[str, str], list[Loss]]:
    pools: dict[int, list[Array]] = {}
    references = {}
    for name, W in matrices.items():
        pools.setdefault(W.shape[1], []).append(W)
        references["tensor", name] = rebuilt_losses(W, config.stages, config.metric)
    for width, pool in pools.items():
        references["width", str(width)] = (
            rebuilt_losses(np.vstack(pool), config.stages, config.metric)
            if len(matrices) > 1
            else next(iter(references.values()))
        )
    of_widths = [references["width", str(width)] for width in pools]
    everything = np.concatenate([W.ravel() for W in matrices.values()])
    centred = float(np.sum((everything - everything.mean()) ** 2))
    references["model", "model"] = [_added(levels, centred) for levels in zip(*of_widths, strict=True)]
    return references


def _added(losses: Iterable[Loss], sst_centered: float) -> Loss:
    rows = [(loss.sse, loss.sst) for loss in losses]
    sse, sst = np.sum(rows, axis=0).tolist()
    return Loss(sse, sst, sst_centered)


def _row_differences(row: Mapping[str, float], loss: Loss) -> Iterator[float]:
    yield abs(row["r2"] - (1 - loss.sse / loss.sst))
    yield abs(row["r2_centered"] - (1 - loss.sse / loss.sst_centered))
