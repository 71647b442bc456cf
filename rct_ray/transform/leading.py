"""Towers over rows too wide to square: only the leading spectrum is known, and the total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rct_ray.transform.affine_code import Step
from rct_ray.transform.basis import Array
from rct_ray.transform.climb import climb
from rct_ray.transform.moments import CoordinateMoments
from rct_ray.transform.rung import Rung
from rct_ray.transform.spectrum import Spectrum
from rct_ray.transform.stages import FixedStage, PCAStage, Stage


@dataclass(frozen=True, slots=True, eq=False)
class LeadingMoments:
    """What randomized SVD leaves of some rows.

    Attributes
    ----------
    rows : int
    mean : ndarray of shape (m,), float64
    total : float
        Sum of squares about the mean.
    leading : Spectrum
        The leading eigenvalues and components of the scatter, as many as a PCA keeps.
    """

    rows: int
    mean: Array
    total: float
    leading: Spectrum

    @property
    def energy(self) -> float:
        """Sum of squares of all coordinates, about zero."""
        return self.total + self.rows * float(self.mean @ self.mean)


def decomposed_stage(stages: Sequence[Stage]) -> PCAStage | None:
    """The PCA that first looks at rows of coordinates, if the tower starts with one or comes to it next."""
    first = stages[1:2] if isinstance(stages[0], FixedStage) else stages[:1]
    return first[0] if first and isinstance(first[0], PCAStage) else None


def climb_leading(base: LeadingMoments, outside: float, stages: Sequence[Stage]) -> list[Rung]:
    """Climb a tower, in the isometric metric, from coordinates whose scatter nobody ever formed.

    The PCA's components are orthonormal, so what they leave is the total less their eigenvalues, and the
    levels above start afresh from their scores.

    Parameters
    ----------
    base : LeadingMoments
        Of the isometric amplitudes, or of the columns if the first stage is the PCA itself.
    outside : float
        Sum of squares of W that `base` does not hold.
    stages : sequence of Stage

    Raises
    ------
    ValueError
        If the coordinates do not meet a PCA first.
    """
    if decomposed_stage(stages) is None:
        raise ValueError("randomized SVD needs a PCA as the first stage, or right after a fixed basis")
    rungs: list[Rung] = []
    rest = list(stages)
    if isinstance(rest[0], FixedStage):
        rungs.append(_identity(base, outside, rest.pop(0)))
    stage = rest.pop(0)
    values, components = base.leading.eigenvalues, base.leading.components
    code = CoordinateMoments(base.rows, np.zeros(len(values)), np.diag(values))
    charge = components.size + len(base.mean)
    lost = max(0.0, base.total - float(values.sum()))
    below = (lost, base.energy) if rungs else (outside + lost, outside + base.energy)
    step = Step(components.T, components, base.mean, charge, code)
    rungs.append(Rung(stage, step, base.rows * len(values) + charge, 0.0, outside + lost, *below))
    if rest:
        above = climb(code, outside + lost, rest, None, ground=False)
        rungs += [replace(rung, params=rung.params + charge) for rung in above]
    return rungs


def _identity(base: LeadingMoments, outside: float, stage: Stage) -> Rung:
    size = len(base.mean)
    nothing = CoordinateMoments(base.rows, base.mean, np.zeros((0, 0)))
    step = Step(np.zeros((0, size)), np.zeros((size, 0)), np.zeros(0), 0, nothing)
    return Rung(stage, step, base.rows * size, 0.0, outside, outside, outside + base.energy)
