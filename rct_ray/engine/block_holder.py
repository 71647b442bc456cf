"""The actor that holds blocks of rows, and what it makes of what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Block: TypeAlias = NDArray[Any]
# What a block may be given as: itself, a callable that makes it, or Ray's ObjectRef, which is not imported here.
Source: TypeAlias = Any


class MissingBlock:
    """Answer of an actor that does not hold a block."""


class BlockHolder:
    """The actor's body: blocks by number, and a door for functions of one block."""

    def __init__(self) -> None:
        from threadpoolctl import threadpool_limits

        # One BLAS thread a worker: the last bit of a product may depend on it.
        threadpool_limits(1)
        self._blocks: dict[int, Block] = {}

    def apply(self, index: int, work: Callable[..., Any], supply: Source, copy: bool, *args: Any) -> Any:
        """`work(block, *args)`, or `MissingBlock` if the block is neither here nor supplied."""
        if index not in self._blocks:
            if supply is None:
                return MissingBlock()
            self._blocks[index] = as_block(supply() if callable(supply) else supply, index, copy)
        with np.errstate(invalid="ignore", over="ignore"):
            return work(self._blocks[index], *args)

    def forget(self) -> None:
        """Hold nothing."""
        self._blocks.clear()


def as_block(source: Source, index: int, copy: bool) -> Block:
    """An array as it is to be held: as narrow as it came, but floating.

    Raises
    ------
    ValueError
        Names the block, if it is not two-dimensional, or not numbers that float64 can hold.
    """
    block = np.asarray(source)
    if block.ndim != 2:
        raise ValueError(f"block {index} has {block.ndim} dimensions, not 2")
    if block.dtype.kind in "iub":
        return block.astype(np.float64)
    if not np.can_cast(block.dtype, np.float64):
        raise ValueError(f"block {index} holds {block.dtype}, not numbers up to float64")
    return block.copy() if copy else block
