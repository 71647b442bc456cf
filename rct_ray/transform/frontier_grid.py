"""What a frontier sweeps, and what it finds at each choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.code_length import BITS_PER_PARAMETER
from rct_ray.transform.moments import CoordinateMoments, coordinate_moments
from rct_ray.transform.spectrum import Spectrum
from rct_ray.transform.stages import (
    DCTStage,
    FixedStage,
    HaarStage,
    LearnedStage,
    PlacedGaussianStage,
    RandomStage,
    SVDStage,
)

Kind: TypeAlias = Literal["code", "null", "reference"]
SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# Bases whose first K functions are the same for every larger K.
_NESTED = (DCTStage, HaarStage, RandomStage, SVDStage)


@dataclass(frozen=True, slots=True)
class Grid:
    """What is swept.

    Attributes
    ----------
    stages : tuple of FixedStage or LearnedStage
        Bases and orderings; their own K is not used.
    shares : tuple of float
        Components, as shares of the columns. All of them (1) is a rotation of the rows; it is tried only in
        bases whose functions do not depend on K.
    searched : tuple of float
        Shares for bases that are searched for anew at each K (order=assign, fit=shared).
    thresholds : tuple of (float or None)
        Of a PCA after the basis; None for none.
    bits : tuple of (int or None)
        To round the code to; None for 16-bit floats as they are.
    rounding : tuple of int
        Bits of the reference that rounds the weights themselves to nearest.
    budgets : tuple of float
        Bits a weight of the reference that keeps the best low-rank factors.
    """

    stages: tuple[FixedStage | LearnedStage, ...]
    shares: tuple[float, ...] = SHARES
    # Beyond, a search takes longest, and a rotation rounded to few bits keeps more for no more bits.
    searched: tuple[float, ...] = SHARES[:4]
    thresholds: tuple[float | None, ...] = (None, 0.99, 0.9)
    bits: tuple[int | None, ...] = (None, 8, 4, 3, 2)
    rounding: tuple[int, ...] = (8, 4, 3, 2)
    budgets: tuple[float, ...] = tuple(2.0 ** (power / 2) for power in range(-10, 9))

    def shares_of(self, stage: FixedStage | LearnedStage) -> tuple[float, ...]:
        """Shares at which a basis is tried, ascending."""
        searched = isinstance(stage, PlacedGaussianStage) and (
            stage.order == "assign" or stage.fit != "fixed"
        )
        shares = sorted(set(self.searched if searched else self.shares))
        return tuple(share for share in shares if share < 1 or nested(stage))


@dataclass(frozen=True, slots=True)
class Setting:
    """One choice; points of equal settings add up over matrices.

    Attributes
    ----------
    kind : {"code", "null", "reference"}
        A null is the same code, fitted to the matrix with its entries shuffled.
    curve : str
        The basis as a tower has it, or what the reference is.
    share : float or None
        Components over columns.
    threshold : float or None
    bits : int or None
    budget : float or None
        Most bits a weight that a low-rank reference may take.
    """

    kind: Kind
    curve: str
    share: float | None = None
    threshold: float | None = None
    bits: int | None = None
    budget: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """What a setting costs and loses on one matrix: bits in all, and sum of squared errors."""

    setting: Setting
    total_bits: float
    sse: float


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Rows in hand, with what codes are learned from.

    Attributes
    ----------
    W : ndarray of shape (n, d), float64
    energy : float
        Sum of squares.
    moments : CoordinateMoments
        Of the columns.
    spectrum : Spectrum
        Of W^T W.
    """

    W: Array
    energy: float
    moments: CoordinateMoments
    spectrum: Spectrum

    @classmethod
    def of(cls, W: Array) -> Matrix:
        """Square the rows up."""
        moments = coordinate_moments(W)
        return cls(W, float(np.vdot(W, W)), moments, moments.spectrum_about_zero())

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.W), self.W.shape[1]


def nested(stage: FixedStage | LearnedStage) -> bool:
    """Whether one code of all components holds every smaller one."""
    return isinstance(stage, _NESTED)


def components_of(share: float, width: int) -> int:
    """K, at least one."""
    return min(width, max(1, round(share * width)))


def plain_bits(numbers: float, side_bits: float = 0.0) -> float:
    """What numbers of 16 bits take, and what is charged in bits beside them."""
    return BITS_PER_PARAMETER * numbers + side_bits


def matrix_bytes(rows: int, width: int) -> int:
    """Memory that the points of one matrix take at the most, about.

    Itself, shuffled, and about its mean; moments, eigenvectors, decoders, and what LAPACK works in.
    """
    return 8 * (3 * rows * width + 16 * width * width)
