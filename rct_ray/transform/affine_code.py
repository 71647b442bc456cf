"""Affine codes, and what they lose of rows that are known by their moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from rct_ray.transform.basis import Array
from rct_ray.transform.factors import CoordinateFactors
from rct_ray.transform.moments import CoordinateMoments

Metric: TypeAlias = Literal["isometric", "amplitude"]
# Moments of rows, squared or not: they answer the same questions.
Summed: TypeAlias = CoordinateMoments | CoordinateFactors


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One stage as an affine code: x -> (x - mean) E and back, code -> code D + mean.

    Attributes
    ----------
    encoder, decoder : ndarray of shape (m, n) and (n, m), float64
    mean : ndarray of shape (m,), float64
    charge : int
        Parameters of the decoder; a fixed basis is free.
    code : CoordinateMoments or CoordinateFactors
        Moments of the code.
    participation_ratio : float or None
        Of the stage's input, for a PCA.
    side_bits : float
        What the decoder costs beside its parameters.
    beside : tuple of (str, ndarray)
        What the decoder was made of, where the decoder itself does not show it.
    """

    encoder: Array
    decoder: Array
    mean: Array
    charge: int
    code: Summed
    participation_ratio: float | None = None
    side_bits: float = 0.0
    beside: tuple[tuple[str, Array], ...] = ()

    @property
    def n_components(self) -> int:
        """Numbers a row of the code has."""
        return int(self.encoder.shape[1])

    @property
    def nbytes(self) -> int:
        """What it weighs, about."""
        return 3 * self.decoder.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class AffineCode:
    """Some steps in a row as one code: x E - origin, decoded as code D + offset."""

    encoder: Array
    decoder: Array
    origin: Array
    offset: Array

    @classmethod
    def of_frame(cls, frame: Array) -> AffineCode:
        """Coordinates in an orthonormal frame, shape (d, K)."""
        width, size = frame.shape
        return cls(frame, frame.T, np.zeros(size), np.zeros(width))

    def then(self, step: Step) -> AffineCode:
        """Take one more step."""
        return AffineCode(
            encoder=self.encoder @ step.encoder,
            decoder=step.decoder @ self.decoder,
            origin=(self.origin + step.mean) @ step.encoder,
            offset=step.mean @ self.decoder + self.offset,
        )

    def encode(self, rows: Array) -> Array:
        """Codes of rows, shape (n, d) -> (n, K)."""
        return np.asarray(rows @ self.encoder - self.origin)

    def decode(self, codes: Array) -> Array:
        """Rows of codes, shape (n, K) -> (n, d)."""
        return np.asarray(codes @ self.decoder + self.offset)

    def lost(self, moments: Summed) -> float:
        """Sum of squares of x - decode(encode(x)) over the rows behind some moments of x.

        tr(F^T S F) + n |bias|^2 with F = I - E D and S the scatter.
        """
        forgotten = np.eye(len(self.encoder)) - self.encoder @ self.decoder
        bias = moments.mean @ forgotten + self.origin @ self.decoder - self.offset
        return max(0.0, moments.squares_of(forgotten) + moments.rows * float(bias @ bias))
