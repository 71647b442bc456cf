"""The levels of a tower as they are climbed, before they are figures in a table."""

from __future__ import annotations

from dataclasses import dataclass

from rct_ray.transform.affine_code import Step
from rct_ray.transform.basis import Array
from rct_ray.transform.stages import Stage


@dataclass(frozen=True, slots=True, eq=False)
class RowStep:
    """One stage on rows in hand.

    Attributes
    ----------
    n_components : int
        Numbers a row of the code has.
    charge : int
        Parameters of the decoder.
    numbers : int
        What the code itself is charged, in parameters.
    side_bits : float
    matrices : tuple of (str, ndarray)
        What the decoder is made of.
    code_bits : float or None
        Of a quantized code.
    converged : float or None
        Share of the rows whose fit converged, where rows are fitted one by one.
    """

    n_components: int
    charge: int
    numbers: int
    side_bits: float = 0.0
    matrices: tuple[tuple[str, Array], ...] = ()
    code_bits: float | None = None
    converged: float | None = None
    participation_ratio: float | None = None

    @property
    def nbytes(self) -> int:
        """What it weighs."""
        return sum(matrix.nbytes for _, matrix in self.matrices)


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """A level above the weights.

    `params` are all floats charged: the code, and every decoder from here down; `side_bits` are what these
    decoders cost beside. `sse` is the sum of squares lost of the weights; `sse_prev` of `sst_prev` is lost of
    the level below, in its own coordinates.
    """

    stage: Stage
    step: Step | RowStep
    params: int
    side_bits: float
    sse: float
    sse_prev: float
    sst_prev: float
