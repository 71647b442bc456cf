"""Orders of a matrix's columns that make its rows smooth, found from H = W^T W alone.

Rows meet the same frame Q of smooth functions whichever column stands where, so naming an order of the columns
(log2(d!) bits) and a sign for each (d bits) may let few functions keep much more. The energy kept is
tr(Q^T P^T H P Q) with P a signed permutation: a quadratic assignment problem. With y_i the row of Q that column
i is given, times its sign, and X = H Y, swapping columns i and j and setting their signs changes it by

    2 (y_i' - y_i) x_i + 2 (y_j' - y_j) x_j + |y_i' - y_i|^2 h_ii + |y_j' - y_j|^2 h_jj
      + 2 (y_i' - y_i)(y_j' - y_j) h_ij

which costs O(K) a pair. The search tries each column of one half against a few of the other, all at once, and
takes the best swap of each by Metropolis' rule while a temperature falls (Kirkpatrick, Gelatt & Vecchi 1983).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array
from rct_ray.transform.code_length import order_bits
from rct_ray.transform.spectrum import eigendecomposition
from rct_ray.transform.stages import Order

Single: TypeAlias = NDArray[np.float32]

# Columns that are tried against as many others at once, at least and at most: few leave chance its say, but in
# a wide matrix good partners are rare.
_BLOCKS = 16, 32
# Temperatures from first to last, in units of the energy kept at the start a column.
_HOT, _COLD = 2.0, 0.008
_STEPS = 200
# A search is cut short where its steps would take more multiply-adds than this (about half a minute of one core).
_MOST_WORK = 6e11
# Columns up to which the search starts from a tree of correlations, which takes d^2 memory and time.
_WIDEST_TREE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """Where each column stands in the smooth order, and whether it is turned about.

    Attributes
    ----------
    places : ndarray of shape (d,), int64
        Column j of the weights stands at place `places[j]`.
    signs : ndarray of shape (d,), float64
        1 or -1.
    signed : bool
        Whether signs were free, and are charged.
    """

    places: NDArray[np.int64]
    signs: Array
    signed: bool

    @property
    def side_bits(self) -> float:
        """log2(d!), and d for the signs."""
        return order_bits(len(self.places)) + (len(self.places) if self.signed else 0)

    def functions(self, along: Array) -> Array:
        """Functions laid along the order, shape (K, d), as functions of the columns."""
        return np.asarray(along[:, self.places] * self.signs)

    def moments(self, second: Array) -> Array:
        """W^T W with columns in the smooth order."""
        order = np.argsort(self.places)
        signs = self.signs[order]
        return np.asarray(second[np.ix_(order, order)] * np.outer(signs, signs))


def place_columns(
    second: Sequence[Array], frame: Array, order: Order, *, signed: bool, seed: Sequence[int] = (0,)
) -> list[Placing]:
    """Place the columns of some matrices along the same frame, each for itself.

    Parameters
    ----------
    second : sequence of ndarray of shape (d, d), float64
        W^T W of each. They are searched together, which for small ones is faster, and each with the same steps.
    frame : ndarray of shape (d, K), float64
        Q, orthonormal columns: smooth functions along the order.
    order : {"none", "svd", "assign"}
        As they stand; by the first right singular vector; or searched for.
    signed : bool
        Whether columns may be turned about ("assign" alone).
    seed : sequence of int
        Of the search.
    """
    width = len(frame)
    if order == "none":
        return [Placing(np.arange(width), np.ones(width), False) for _ in second]
    if order == "svd":
        return [Placing(_by_first_vector(one), np.ones(width), False) for one in second]
    places = np.stack([_by_correlation(one) for one in second])
    search = _Search(np.stack(second), frame, places, signed, seed)
    search.anneal()
    return [Placing(places, signs, signed) for places, signs in search.placings()]


def _by_first_vector(second: Array) -> NDArray[np.int64]:
    return _places(np.argsort(eigendecomposition(second).components[0], kind="stable"))


def _by_correlation(second: Array) -> NDArray[np.int64]:
    """Leaves of an average-linkage tree over 1 - correlation: columns that are alike stand together."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    width = len(second)
    if not 3 <= width <= _WIDEST_TREE:
        return np.arange(width)
    norms = np.sqrt(np.diag(second))
    norms[norms == 0] = 1.0
    distance = np.clip(1.0 - second / np.outer(norms, norms), 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    return _places(leaves_list(linkage(squareform(distance, checks=False), "average")))


def _places(order: NDArray[Any]) -> NDArray[np.int64]:
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


class _Search:
    """Columns of a batch of matrices, their vectors Y along the frame, and X = H Y.

    Columns are shuffled once and cut into blocks; a step pairs the blocks at random and tries every column of
    the one against every column of the other.
    """

    def __init__(
        self, H: Array, frame: Array, places: NDArray[np.int64], signed: bool, seed: Sequence[int]
    ) -> None:
        self.generator = np.random.default_rng(np.random.SeedSequence(tuple(seed)))
        self.batch, self.width = places.shape
        self.label = self.generator.permutation(self.width)
        traces = np.trace(H, axis1=1, axis2=2)
        scaled = H / np.where(traces > 0, traces, 1.0)[:, None, None]
        self.H = scaled.astype(np.float32)[:, self.label[:, None], self.label]
        self.own = np.ascontiguousarray(np.diagonal(self.H, axis1=1, axis2=2))
        self.frame = frame.astype(np.float32)
        self.norms = np.vecdot(self.frame, self.frame)
        self.places = places[:, self.label]
        self.signed = signed
        self.Y = self.frame[self.places]
        self.X = self.H @ self.Y
        size = max(1, min(max(_BLOCKS[0], self.width // 32), _BLOCKS[1], self.width // 4))
        starts = np.arange(0, self.width - size + 1, size)
        self.ragged = self.width % size > 0
        self.starts = np.append(starts, self.width - size) if self.ragged else starts
        self.within = np.arange(size)
        self.tiles = np.lib.stride_tricks.sliding_window_view(self.H, (size, size), axis=(1, 2))

    def anneal(self) -> None:
        """Swap, first at random and at last only for the better."""
        if self.width < 2:
            return
        kept = np.vecdot(self.X, self.Y).sum(axis=1, dtype=np.float64)
        unit = np.maximum(kept, self.frame.shape[1] / self.width) / self.width
        for temperature in _temperatures(self.width, self.frame.shape[1]):
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
        swaps = _Swaps(self, I, J, self.tiles[:, first, second])
        partner, gain = swaps.best()
        uniform = self.generator.random(gain.shape, np.float32)
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
        ones = np.ones_like(hI)
        left = [nI * hI - 2 * np.vecdot(XI, self.YI), ones, nI, hI]
        right = [ones, nJ * hJ - 2 * np.vecdot(XJ, self.YJ), hJ, nJ]
        self.always = np.stack(left, axis=3) @ np.stack(right, axis=2)

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
        #: Whether i is the best for its j as well, so that no two want the same.
        self.mutual = np.take_along_axis(gain.argmax(axis=2), partner, axis=2) == np.arange(size)
        flat = gain.reshape(-1, size)
        return partner, flat[np.arange(len(flat)), partner.reshape(-1)].reshape(partner.shape)

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


def _temperatures(width: int, size: int) -> Array:
    """Falling by equal ratios, in fewer steps where each takes long."""
    work = width * size * (width + _BLOCKS[1])
    steps = max(8, min(_STEPS, int(_MOST_WORK / max(work, 1))))
    return np.asarray(_HOT * (_COLD / _HOT) ** (np.arange(steps) / max(steps - 1, 1)))
