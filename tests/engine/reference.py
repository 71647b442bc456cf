"""Towers the slow way: whole matrices in float64, codes by least squares, weights really rebuilt."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Level:
    """What a level says of the weights."""

    params: int
    kept: int
    rebuilt: np.ndarray
    participation_ratio: float | None = None


def gaussians(width, count, relative_width=1.0):
    centres = np.array([(width - 1) * k / (count - 1) if count > 1 else 0.0 for k in range(count)])
    sigma = relative_width * width / count
    return np.exp(-((np.arange(width)[None, :] - centres[:, None]) ** 2) / (2 * sigma**2))


def cosines(width, count):
    frequencies, places = np.arange(count)[:, None], np.arange(width)[None, :] + 0.5
    waves = np.cos(np.pi * frequencies * places / width)
    return waves / np.linalg.norm(waves, axis=1, keepdims=True)


def tower(W, functions, metric="isometric", threshold=0.95, pcas=3):
    """A fixed basis and some PCAs; level by level, from the weights up."""
    G = functions if metric == "amplitude" else np.linalg.qr(functions.T)[0].T
    codes = np.linalg.lstsq(G.T, W.T, rcond=None)[0].T
    charged, decoders = 0, [lambda x: x @ G]
    levels = [Level(W.size, W.shape[1], W), Level(codes.size, len(G), codes @ G)]
    for _ in range(pcas):
        mean = codes.mean(axis=0)
        spread = np.linalg.svd(codes - mean, full_matrices=False)
        energy = spread.S**2
        kept = next(n for n in range(1, len(energy) + 1) if energy[:n].sum() >= threshold * energy.sum())
        V = spread.Vh[:kept]
        scores = (codes - mean) @ V.T
        decoders.append(lambda x, V=V, mean=mean: x @ V + mean)
        charged += V.size + mean.size
        rebuilt = scores
        for decode in reversed(decoders):
            rebuilt = decode(rebuilt)
        ratio = energy.sum() ** 2 / (energy**2).sum()
        levels.append(Level(scores.size + charged, kept, rebuilt, ratio))
        codes = scores
    return levels


def r2(W, rebuilt):
    return 1 - ((W - rebuilt) ** 2).sum() / (W**2).sum()


def r2_centered(W, rebuilt):
    return 1 - ((W - rebuilt) ** 2).sum() / ((W - W.mean()) ** 2).sum()


def best_low_rank(singular_values, shape, params):
    """Energy that the best factors of no more than this many numbers keep."""
    rank = 0
    while (rank + 1) * sum(shape) <= params:
        rank += 1
    return (singular_values[:rank] ** 2).sum() / (singular_values**2).sum()


def bits_per_weight(W, level, side_bits=0.0):
    lost = ((W - level.rebuilt) ** 2).sum() / (W**2).sum()
    return (16 * level.params + side_bits) / W.size + 0.5 * max(0.0, math.log2(lost / 0.01))


def null_at_level_one(W, functions):
    """Energy that the basis keeps, on average, of normal entries of the weights' mean and variance."""
    Q = np.linalg.qr(functions.T)[0]
    rows, mean, variance = len(W), W.mean(), W.var()
    kept = rows * ((mean * Q.sum(axis=0)) ** 2).sum() + rows * variance * Q.shape[1]
    return kept / (W.size * (mean**2 + variance))
