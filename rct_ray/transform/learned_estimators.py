"""SVD and PCA as scikit-learn estimators, from moments.

Importing this module imports scikit-learn; a run does not.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from rct_ray.transform.learned import learned_step
from rct_ray.transform.linear_code import LinearCode
from rct_ray.transform.moments import CoordinateMoments, coordinate_moments
from rct_ray.transform.spectrum import components_needed, eigendecomposition, participation_ratio
from rct_ray.transform.stages import SVDStage


class _FromMoments(LinearCode):
    """An estimator that needs nothing of the rows but their moments, so rows may come in blocks."""

    moments_: CoordinateMoments

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit to all rows at once.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
        y : ignored
        """
        del y
        self.moments_ = coordinate_moments(self._validated(X, reset=True))
        self._solve()
        return self

    def partial_fit(self, X: ArrayLike, y: object = None) -> Self:
        """Add a block of rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
        y : ignored
        """
        del y
        first = not hasattr(self, "moments_")
        block = coordinate_moments(self._validated(X, reset=first))
        self.moments_ = block if first else self.moments_.merge(block)
        self._solve()
        return self

    def _solve(self) -> None:
        raise NotImplementedError


class SVDBasis(_FromMoments):
    """Code each row by the K leading right singular vectors of the rows seen, about zero.

    Parameters
    ----------
    n_components : int, optional
        K; by default max(1, round(d / 32)).

    Attributes
    ----------
    components_ : ndarray of shape (K, d)
    singular_values_ : ndarray of shape (K,)
    mean_ : ndarray of shape (d,)
        Zeros.
    n_components_, n_features_in_ : int
    """

    def __init__(self, n_components: int | None = None) -> None:
        self.n_components = n_components

    def _solve(self) -> None:
        width = len(self.moments_.mean)
        count = SVDStage(self.n_components).components_for(width)
        if not 1 <= count <= width:
            raise ValueError(f"n_components={count} must be between 1 and the {width} columns")
        step = learned_step(self.moments_, SVDStage(count))
        self.n_components_ = count
        self.components_, self.encoder_, self.mean_ = step.decoder, step.encoder, step.mean
        self.singular_values_ = np.sqrt(np.maximum(np.diag(step.code.second_moment), 0.0))


class PCA(_FromMoments):
    """Principal components from moments, as few as reach a share of the variance.

    The scatter is summed in float64 about the mean (Chan, Golub & LeVeque 1979), so rows may come in blocks
    of any size. It squares the condition number: directions below about 1e-8 of the largest singular value
    are rounding.

    Parameters
    ----------
    threshold : float, default 0.95
        Share of the variance to keep, in (0, 1].
    n_components : int, optional
        Keep this many instead.

    Attributes
    ----------
    components_ : ndarray of shape (n_keep, d)
        The largest-magnitude entry of each is positive.
    mean_ : ndarray of shape (d,)
    explained_variance_ : ndarray of shape (n_keep,)
        Eigenvalues of the scatter over n_rows - 1.
    explained_variance_ratio_ : ndarray of shape (n_keep,)
    singular_values_ : ndarray of shape (n_keep,)
    participation_ratio_ : float or None
        (sum lambda)^2 / sum lambda^2; None if nothing varies.
    n_components_, n_samples_seen_, n_features_in_ : int
    """

    def __init__(self, threshold: float = 0.95, n_components: int | None = None) -> None:
        self.threshold = threshold
        self.n_components = n_components

    def _solve(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, not {self.threshold}")
        width = len(self.moments_.mean)
        if self.n_components is not None and not 1 <= self.n_components <= width:
            raise ValueError(f"n_components={self.n_components} must be between 1 and the {width} columns")
        spectrum = eigendecomposition(self.moments_.scatter)
        kept = self.n_components or components_needed(spectrum.eigenvalues, self.threshold)
        self.n_components_ = kept
        self.components_ = spectrum.components[:kept]
        self.encoder_, self.mean_ = self.components_.T, self.moments_.mean
        total = float(spectrum.eigenvalues.sum())
        self.n_samples_seen_ = self.moments_.rows
        self.explained_variance_ = spectrum.eigenvalues[:kept] / max(self.moments_.rows - 1, 1)
        self.explained_variance_ratio_ = spectrum.eigenvalues[:kept] / total if total else np.zeros(kept)
        self.singular_values_ = np.sqrt(spectrum.eigenvalues[:kept])
        self.participation_ratio_ = participation_ratio(self.moments_.scatter)
