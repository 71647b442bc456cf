"""What `DistributedPCA` knows about its blocks, and the passes it makes over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rct_ray.engine.block_holder import Block, Source
from rct_ray.transform.basis import Array
from rct_ray.transform.factors import CoordinateFactors, MergeTree, coordinate_factors
from rct_ray.transform.randomized import block_scatter_times, column_moments

Blocks: TypeAlias = NDArray[Any] | Iterable[Source]

# A single array is cut into blocks of about this size: fixed, so that results do not depend on the workers.
_BLOCK_BYTES = 16 << 20
# Rows at the head of each block that help to guess the mean before anything is summed.
_HEAD_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A block, as its actor described it.

    Attributes
    ----------
    rows, width : int
    double : bool
        Whether it is float64.
    head : ndarray of shape (width,), float64
        Mean of its first rows; zeros where they are not finite.
    """

    rows: int
    width: int
    double: bool
    head: Array


class Resident(Protocol):
    """Blocks of rows, wherever they are, and a way to take a function to each."""

    def map(self, work: Callable[..., Any], *args: Any) -> Iterator[tuple[int, Any]]:
        """`work(block, *args)` of every block, in order of the blocks."""


class RowPasses:
    """Passes over all blocks; the centred rows of `transform.randomized.Rows` once `centre` was called.

    Parameters
    ----------
    resident : Resident
        Blocks on Ray actors, or in this process.
    held : sequence of Held
        All blocks, in order.

    Attributes
    ----------
    origin : ndarray of shape (K,)
        Near the mean of all rows, from their heads. Summaries are of rows less this, so that merging them
        loses nothing to a mean far from zero.
    mean : ndarray of shape (K,)
    total : float
        Sum of squares about the mean.
    """

    def __init__(self, resident: Resident, held: Sequence[Held]) -> None:
        self._resident = resident
        self._held = held
        self.rows = sum(block.rows for block in held)
        self.width = held[0].width
        self.origin = np.sum([block.head * (block.rows / self.rows) for block in held], axis=0)
        self.mean = self.origin
        self.total = 0.0

    def merged(self, summary: Callable[..., Any], *args: Any) -> Any:
        """`summary(block, *args)` of all blocks, merged in a binary tree over block numbers.

        Raises
        ------
        ValueError
            If the mean of a block is not finite, which says that one of its rows is not.
        """
        tree: MergeTree[Any] = MergeTree(len(self._held))
        for index, part in self._resident.map(summary, *args):
            if not np.isfinite(part.mean).all():
                raise _not_finite(index)
            tree.add(index, part)
        return tree.result()

    def centre(self) -> None:
        """Find the mean and the total variance."""
        columns = self.merged(column_moments, self.origin)
        self.mean, self.total = self.origin + columns.mean, float(columns.squares.sum())

    def factors(self, basis: Array | None) -> CoordinateFactors:
        """Factors of the centred rows times a basis; of themselves for None."""
        whole: CoordinateFactors = self.merged(coordinate_factors, self.mean, basis)
        return whole

    def scatter_times(self, basis: Array) -> Array:
        """X^T (X @ basis) of the centred rows X, summed in order of the blocks."""
        product = np.zeros(basis.shape)
        for _, part in self._resident.map(block_scatter_times, self.mean, basis):
            product += part
        return product

    def gathered(self) -> Array:
        """All rows less the origin, in this process."""
        rows = np.empty((self.rows, self.width))
        start = 0
        for index, block in self._resident.map(whole_block):
            if not np.isfinite(block).all():
                raise _not_finite(index)
            np.subtract(block, self.origin, out=rows[start : start + len(block)])
            start += len(block)
        return rows


def cut(blocks: Blocks) -> Iterable[Source]:
    """Blocks as they are; views of a single array, each of about 16 MiB."""
    if not isinstance(blocks, np.ndarray) or blocks.ndim != 2:
        return blocks
    step = max(1, _BLOCK_BYTES // max(1, blocks.shape[1] * blocks.dtype.itemsize))
    return (blocks[start : start + step] for start in range(0, max(1, len(blocks)), step))


def describe(block: Block) -> Held:
    """What the driver has to know of a block; reads only its head."""
    head = np.zeros(block.shape[1])
    if len(block):
        head = block[:_HEAD_ROWS].astype(np.float64).mean(axis=0)
    known = np.where(np.isfinite(head), head, 0.0)
    return Held(len(block), block.shape[1], block.dtype.itemsize > 4, known)


def checked(held: list[Held]) -> list[Held]:
    """Refuse what cannot be rows of one matrix.

    Raises
    ------
    ValueError
        If there are no rows or no columns, or widths differ.
    """
    for index, block in enumerate(held):
        if block.width != held[0].width:
            raise ValueError(f"block {index} has {block.width} columns, block 0 has {held[0].width}")
    if not sum(block.rows for block in held) or not held[0].width:
        raise ValueError("there is nothing to fit: the blocks have no rows, or no columns")
    return held


def whole_block(block: Block) -> Block:
    """The block itself, for who wants all of it."""
    return block


def scores(block: Block, mean: Array, components: Array) -> Array:
    """Coordinates of rows along the components, in float64, shape (n, n_components)."""
    return np.asarray((np.asarray(block, dtype=np.float64) - mean) @ components.T)


def _not_finite(index: int) -> ValueError:
    return ValueError(f"block {index} holds NaN or infinity, or numbers too large to sum")
