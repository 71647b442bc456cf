"""What must come out of weights whose answer is known: white noise, and a matrix of rank three."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks._table import Report, at_most
from rct_ray.transform.encode import Encoder
from rct_ray.transform.level import Level
from rct_ray.transform.moments import merge_all
from rct_ray.transform.stages import FixedStage
from rct_ray.transform.tower import tower
from rct_ray.transform.tower_language import parse_tower

ROWS, WIDTH, K = 4096, 256, 8
SEEDS = range(10)


def main() -> bool:
    report = Report(
        f"Known answers: {ROWS} x {WIDTH}, K={K}, level 1", "weights", "figure", "worst", "allowed"
    )
    for dtype in (np.float64, np.float32):
        levels = [first_level(white(seed, dtype), f"gaussian(K={K})") for seed in SEEDS]
        name = f"white noise, {np.dtype(dtype)}, {len(SEEDS)} seeds"
        chance = max(abs(level.r2 - K / WIDTH) for level in levels)
        report.add(
            name, f"|r2 - {K}/{WIDTH}|", f"{chance:.1e}", "0.003", ratio=chance / 0.003, required=at_most(1)
        )
        lift = max(abs(_known(level.lift)) for level in levels)
        report.add(name, "|lift|", f"{lift:.1e}", "0.005", ratio=lift / 0.005, required=at_most(1))
    lost = max(1 - first_level(rank_three(seed), "svd(3)").r2 for seed in SEEDS)
    report.add(
        f"rank 3, svd(3), {len(SEEDS)} seeds", "1 - r2", f"{lost:.1e}", "1e-12", ratio=lost / 1e-12,
        required=at_most(1),
    )  # fmt: skip
    return report.show()


def first_level(W: NDArray[np.floating], text: str) -> Level:
    """Level 1 of a tower, through the encoder that the shards use."""
    stages = parse_tower(text)
    first = stages[0]
    frame = first.basis(WIDTH).frame if isinstance(first, FixedStage) else None
    encoder = Encoder(frame, columns=frame is None, single=True)
    moments = merge_all(encoder.encode(W[start : start + 512]) for start in range(0, len(W), 512))
    return tower(moments, WIDTH, stages).levels[1]


def white(seed: int, dtype: type[np.floating]) -> NDArray[np.floating]:
    """Independent normal weights."""
    return (0.02 * np.random.default_rng(seed).standard_normal((ROWS, WIDTH))).astype(dtype)


def rank_three(seed: int) -> NDArray[np.float64]:
    """A product of normal factors."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((ROWS, 3)) @ generator.standard_normal((3, WIDTH))


def _known(value: float | None) -> float:
    assert value is not None
    return value
