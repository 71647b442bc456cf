"""What a level honestly costs: its description length, and what the best matrix of its size would keep."""

from __future__ import annotations

import math

import numpy as np

from rct_ray.transform.basis import Array

TARGET_R2 = 0.99
BITS_PER_PARAMETER = 16


def bits_per_weight(
    weights: int, params: int, side_bits: float, sse: float, sst: float, target: float = TARGET_R2
) -> float:
    """Description length of a code and of what it leaves, at a stated R2, per weight.

    The code costs 16 bits a parameter and its side information; the residual is coded down to
    (1 - target) * SST at the Gaussian rate-distortion bound, (n/2) log2(SSE / ((1 - target) SST)) bits
    (Cover & Thomas, Elements of Information Theory, 10.3.2), or nothing if it is already below.
    """
    allowed = (1 - target) * sst
    residual = weights / 2 * math.log2(sse / allowed) if sse > allowed > 0 else 0.0
    return (BITS_PER_PARAMETER * params + side_bits + residual) / weights


def svd_bound(eigenvalues: Array, rows: int, params: int) -> float:
    """Energy kept by the best rank-r matrix that costs no more than `params`.

    Parameters
    ----------
    eigenvalues : ndarray of shape (d,), float64
        Of W^T W, descending.
    rows : int
    params : int
        Floats to spend: r is the largest rank with r * (rows + d) <= params (Eckart & Young 1936).

    Returns
    -------
    float
        Sum of squares kept, in the weights' units squared.
    """
    rank = params // (rows + len(eigenvalues))
    return float(np.sum(eigenvalues[:rank]))


def order_bits(count: int) -> float:
    """log2(n!): what it takes to name one order of n things."""
    return math.lgamma(count + 1) / math.log(2)
