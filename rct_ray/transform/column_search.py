"""A search for signed permutations that give each column of a matrix its place along smooth functions.

The energy kept is tr(Q^T P^T H P Q) with H = W^T W, Q the frame and P the permutation: a quadratic assignment
problem. With y_i the row of Q that column i is given, times its sign, and X = H Y, swapping columns i and j
and setting their signs changes it by

    2 (y_i' - y_i) x_i + 2 (y_j' - y_j) x_j + |y_i' - y_i|^2 h_ii + |y_j' - y_j|^2 h_jj
      + 2 (y_i' - y_i)(y_j' - y_j) h_ij

which costs O(K) a pair. Blocks of columns are tried against each other at once, and of each column the best
swap is taken by Metropolis' rule while a temperature falls (Kirkpatrick, Gelatt & Vecchi 1983).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array

Single: TypeAlias = NDArray[np.float32]

# Columns that are tried against as many others at once, at least and at most: few leave chance its say, but in
# a wide matrix good partners are rare.
_BLOCKS = 16, 32
# Temperatures from first to last, in units of the energy kept at the start a column.
_HOT, _COLD = 2.0, 0.008
# Steps of a search, at least and at most: as many as a narrow matrix can afford.
_STEPS = 200, 400
_COLUMN_STEPS = 81920
# A search is cut short where its steps would take more multiply-adds than this (about half a minute of one core).
_MOST_WORK = 2e12


def anneal(
    H: Sequence[Array],
    frame: Array,
    places: NDArray[np.int64],
    signs: Array,
    *,
    signed: bool,
    seed: Sequence[int],
    hot: bool,
) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Search for better places and signs, for a batch of matrices at once.

    Parameters
    ----------
    H : sequence of b ndarray of shape (d, d), float64
    frame : ndarray of shape (d, K), float64
        Q, orthonormal columns.
    places, signs : ndarray of shape (b, d), int64 and float64
        To start from.
    signed : bool
        Whether signs are free.
    seed : sequence of int
    hot : bool
        Whether to forget the start first, or only to better it.

    Yields
    ------
    (places, signs)
        Of each matrix.
    """
    search = _Search(H, frame, places, signs, signed, seed)
    search.anneal(hot)
    yield from search.placings()


class _Search:
    """Columns of a batch of matrices, their vectors Y along the frame, and X = H Y.

    Columns are shuffled once and cut into blocks; a step pairs the blocks at random and tries every column of
    the one against every column of the other.
    """

    def __init__(
        self,
        H: Sequence[Array],
        frame: Array,
        places: NDArray[np.int64],
        signs: Array,
        signed: bool,
        seed: Sequence[int],
    ) -> None:
        self.generator = np.random.default_rng(np.random.SeedSequence(tuple(seed)))
        self.batch, self.width = places.shape
        self.label = self.generator.permutation(self.width)
        self.H = np.stack([_scaled(one)[self.label[:, None], self.label] for one in H])
        self.own = np.ascontiguousarray(np.diagonal(self.H, axis1=1, axis2=2))
        self.frame = frame.astype(np.float32)
        self.norms = np.vecdot(self.frame, self.frame)
        self.places = places[:, self.label]
        self.signed = signed
        self.Y = self.frame[self.places] * signs[:, self.label, None].astype(np.float32)
        self.X = self.H @ self.Y
        size = max(1, min(max(_BLOCKS[0], self.width // 32), _BLOCKS[1], self.width // 4))
        starts = np.arange(0, self.width - size + 1, size)
        self.ragged = self.width % size > 0
        self.starts = np.append(starts, self.width - size) if self.ragged else starts
        self.within = np.arange(size)
        self.grid = self.within[:, None] * self.width + self.within
        self.flat = self.H.reshape(self.batch, -1)
        #: Squared norm of each column's vector.
        self.lengths = self.norms[self.places]

    def anneal(self, hot: bool) -> None:
        """Swap, first at random and at last only for the better."""
        if self.width < 2:
            return
        kept = np.vecdot(self.X, self.Y).sum(axis=1, dtype=np.float64)
        unit = np.maximum(kept, self.frame.shape[1] / self.width) / self.width
        for temperature in _temperatures(self.width, self.frame.shape[1], hot):
            self._step((temperature * unit).astype(np.float32))

    def placings(self) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """Places and signs of each matrix."""
        back = np.argsort(self.label)
        turned = np.vecdot(self.Y, self.frame[self.places]) < 0
        yield from zip(self.places[:, back], np.where(turned, -1.0, 1.0)[:, back], strict=True)

    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First columns of the blocks that meet."""
        starts = self.starts
        if self.ragged:
            # The last block overlaps the one before it: only one of both is used.
            starts = np.delete(starts, self.generator.integers(len(starts) - 2, len(starts)))
        drawn = self.generator.permutation(starts)
        half = len(drawn) // 2
        return drawn[:half], drawn[half : 2 * half]

    def _step(self, temperature: Single) -> None:
        first, second = self._pairs()
        I, J = first[:, None] + self.within, second[:, None] + self.within  # noqa: E741
        tiles = (first * self.width + second)[:, None, None] + self.grid
        swaps = _Swaps(self, I, J, self.flat.take(tiles, axis=1))
        partner, gain = swaps.best()
        # The same chance for all, so that what is found of one does not hang on what is searched beside it.
        uniform = self.generator.random(gain.shape[1:], np.float32)
        least = temperature[:, None, None] * np.log(uniform + np.float32(1e-30))
        one, group, at = np.nonzero((gain > least) & swaps.mutual)
        if len(one):
            other = partner[one, group, at]
            i, j = I[group, at], J[group, other]
            self._swap(one, i, j, *swaps.vectors(one, group, at, other))

    def _swap(
        self, one: NDArray[np.int64], i: NDArray[np.int64], j: NDArray[np.int64], Yi: Single, Yj: Single
    ) -> None:
        change = np.concatenate([Yi - self.Y[one, i], Yj - self.Y[one, j]])
        self.Y[one, i], self.Y[one, j] = Yi, Yj
        self.places[one, i], self.places[one, j] = self.places[one, j], self.places[one, i]
        self.lengths[one, i], self.lengths[one, j] = self.lengths[one, j], self.lengths[one, i]
        ends = np.searchsorted(one, np.arange(self.batch + 1))
        for index, (start, stop) in enumerate(itertools.pairwise(ends)):
            if 3 * (stop - start) > self.width:
                np.matmul(self.H[index], self.Y[index], out=self.X[index])
            elif stop > start:
                moved = np.concatenate([i[start:stop], j[start:stop]])
                own = np.concatenate([change[start:stop], change[len(one) + start : len(one) + stop]])
                self.X[index] += self.H[index, moved].T @ own


class _Swaps:
    """What swapping each column i of some blocks with each j of others would gain, with the best signs."""

    def __init__(
        self,
        search: _Search,
        I: NDArray[np.int64],  # noqa: E741
        J: NDArray[np.int64],
        between: Single,
    ) -> None:
        self.signed = search.signed
        hI, hJ, nI, nJ = (
            search.own[:, I],
            search.own[:, J],
            *(search.norms[search.places[:, k]] for k in (I, J)),
        )
        self.YI, self.YJ = search.Y[:, I], search.Y[:, J]
        XI, XJ = search.X[:, I], search.X[:, J]
        # y_i' = a y_j and y_j' = b y_i gain 2 (a A + b B + a b C) beside what no sign changes.
        YJ_T = self.YJ.swapaxes(2, 3)
        self.C = self.YI @ YJ_T
        self.C *= between
        self.A = (XI - hI[..., None] * self.YI) @ YJ_T
        self.A -= between * nJ[:, :, None, :]
        self.B = self.YI @ (XJ - hJ[..., None] * self.YJ).swapaxes(2, 3)
        between *= nI[..., None]
        self.B -= between
        self.always = (nI * hI - 2 * np.vecdot(XI, self.YI))[..., None] + (
            nJ * hJ - 2 * np.vecdot(XJ, self.YJ)
        )[:, :, None, :]
        self.always += np.stack([nI, hI], axis=3) @ np.stack([hJ, nJ], axis=2)

    def best(self) -> tuple[NDArray[np.int64], Single]:
        """For each i the j that gains the most, as its place in the block, and what it gains."""
        gain = self.A + self.B
        if self.signed:
            np.abs(gain, out=gain)
            gain += self.C
            other = self.A - self.B
            np.abs(other, out=other)
            other -= self.C
            np.maximum(gain, other, out=gain)
        else:
            gain += self.C
        gain += self.C
        gain *= 2
        gain += self.always
        partner = gain.argmax(axis=3)
        size = gain.shape[2]
        rows = np.arange(partner.size).reshape(partner.shape)
        first = rows[:, :, :1]
        #: Whether i is the best for its j as well, so that no two want the same.
        self.mutual = gain.argmax(axis=2).reshape(-1).take(first + partner) == np.arange(size)
        return partner, gain.reshape(-1).take(rows * size + partner)

    def vectors(
        self,
        one: NDArray[np.int64],
        group: NDArray[np.int64],
        at: NDArray[np.int64],
        other: NDArray[np.int64],
    ) -> tuple[Single, Single]:
        """What some columns i and j would be given."""
        Yi, Yj = self.YJ[one, group, other], self.YI[one, group, at]
        if not self.signed:
            return Yi, Yj
        a, b, c = (values[one, group, at, other] for values in (self.A, self.B, self.C))
        alike = np.abs(a + b) + c >= np.abs(a - b) - c
        first = np.where(np.where(alike, a + b, a - b) >= 0, np.float32(1), np.float32(-1))[:, None]
        return Yi * first, Yj * np.where(alike[:, None], first, -first)


def _scaled(H: Array) -> Single:
    """H over its trace, in single precision."""
    trace = float(np.trace(H))
    return (H / trace if trace > 0 else H).astype(np.float32)


def _temperatures(width: int, size: int, hot: bool) -> Array:
    """Falling by equal ratios, in fewer steps where each takes long."""
    work = width * size * (width + _BLOCKS[1])
    steps = max(_STEPS[0], min(_STEPS[1], _COLUMN_STEPS // width)) // (1 if hot else 2)
    steps = max(8, min(steps, int(_MOST_WORK / work)))
    first = _HOT if hot else _COLD
    return np.asarray(first * (_COLD / _HOT) ** (np.arange(steps) / max(steps - 1, 1)))
