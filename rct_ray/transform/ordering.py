"""Orders of a matrix's columns that make its rows smooth, found from H = W^T W alone.

Rows meet the same smooth functions whichever column stands where, so naming an order of the columns (log2(d!)
bits) and a sign for each (d bits) may let few functions keep much more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rct_ray.transform.basis import Array
from rct_ray.transform.code_length import order_bits
from rct_ray.transform.column_search import anneal
from rct_ray.transform.spectrum import eigendecomposition
from rct_ray.transform.stages import Order

# Columns up to which a search starts from a tree of correlations, which takes d^2 memory and time.
_WIDEST_TREE = 4096
# Correlations are raised to this power, so that neighbours alone pull at each other.
_SHARPNESS = 4
# Matrices that are searched at once, where they are so small that steps are mostly calls.
_MOST_TOGETHER, _TOGETHER_CELLS = 16, 1 << 20


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
        W^T W of each. They are searched together, which for small ones is faster, but what is found of one does
        not depend on the others.
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
        return [_unsigned(np.arange(width)) for _ in second]
    if order == "svd":
        return [_unsigned(_by_first_vector(one)) for one in second]
    starts = [max(_starts(one, signed), key=_keeps(one, frame)) for one in second]
    found = _searched(second, frame, starts, signed, seed, hot=True)
    # Where the columns do lie along a curve, no swaps find what its spectrum shows at once.
    for index, (one, start) in enumerate(zip(second, starts, strict=True)):
        keeps = _keeps(one, frame)
        if keeps(start) > keeps(found[index]):
            better = _searched([one], frame, [start], signed, seed, hot=False)[0]
            found[index] = max(start, better, key=keeps)
    return found


def _searched(
    second: Sequence[Array],
    frame: Array,
    starts: Sequence[Placing],
    signed: bool,
    seed: Sequence[int],
    *,
    hot: bool,
) -> list[Placing]:
    found: list[Placing] = []
    together = max(1, min(_MOST_TOGETHER, _TOGETHER_CELLS // len(frame) ** 2))
    for first in range(0, len(second), together):
        some = slice(first, first + together)
        places = np.stack([one.places for one in starts[some]])
        signs = np.stack([one.signs for one in starts[some]])
        searched = anneal(second[some], frame, places, signs, signed=signed, seed=seed, hot=hot)
        found += [Placing(*one, signed) for one in searched]
    return found


def _keeps(second: Array, frame: Array) -> Callable[[Placing], float]:
    """The energy that a placing keeps."""

    def kept(placing: Placing) -> float:
        functions = placing.functions(frame.T)
        return float(np.vdot(functions, functions @ second))

    return kept


def _starts(second: Array, signed: bool) -> Iterator[Placing]:
    width = len(second)
    yield Placing(np.arange(width), np.ones(width), signed)
    norms = np.sqrt(np.diag(second))
    norms[norms == 0] = 1.0
    correlation = second / np.outer(norms, norms)
    if 3 <= width <= _WIDEST_TREE:
        yield Placing(_by_tree(correlation), np.ones(width), signed)
    spectral = _by_laplacian(correlation, signed) if width >= 3 else None
    if spectral is not None:
        yield spectral


def _unsigned(places: NDArray[np.int64]) -> Placing:
    return Placing(places, np.ones(len(places)), False)


def _by_first_vector(second: Array) -> NDArray[np.int64]:
    return _places(np.argsort(eigendecomposition(second).components[0], kind="stable"))


def _by_tree(correlation: Array) -> NDArray[np.int64]:
    """Leaves of an average-linkage tree over 1 - correlation: columns that are alike stand together."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = np.clip(1.0 - correlation, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    return _places(leaves_list(linkage(squareform(distance, checks=False), "average")))


def _by_laplacian(correlation: Array, signed: bool) -> Placing | None:
    """By the second eigenvector of the Laplacian of sharpened correlations (Atkins, Boman & Hendrickson 1998).

    With signs, these are first taken from the lowest eigenvector of the signed Laplacian (Kunegis et al. 2010).
    None where the eigenvectors are not found in a few steps.
    """
    pull = np.sign(correlation) * np.abs(correlation) ** _SHARPNESS
    np.fill_diagonal(pull, 0.0)
    signs = np.ones(len(pull))
    if signed:
        lowest = _lowest(pull, 1)
        if lowest is None:
            return None
        signs = np.where(lowest[:, 0] < 0, -1.0, 1.0)
    lowest = _lowest(np.maximum(pull * np.outer(signs, signs), 0.0), 2)
    if lowest is None:
        return None
    return Placing(_places(np.argsort(lowest[:, 1], kind="stable")), signs, signed)


def _lowest(pull: Array, count: int) -> Array | None:
    """Lowest eigenvectors of the Laplacian of a graph, shape (d, count), roughly."""
    from scipy.sparse.linalg import ArpackError, eigsh

    degrees = np.abs(pull).sum(axis=1)
    shifted = (pull - np.diag(degrees - 2 * degrees.max())).astype(np.float32)
    start = np.random.default_rng(0).standard_normal(len(pull)).astype(np.float32)
    try:
        values, vectors = eigsh(shifted, k=count, which="LA", v0=start, tol=1e-3, maxiter=60)
    except ArpackError:
        return None
    return np.asarray(vectors[:, np.argsort(-values)], np.float64)


def _places(order: NDArray[Any]) -> NDArray[np.int64]:
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places
