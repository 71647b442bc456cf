"""The bases and the PCA as scikit-learn estimators, for people who want one fit alone.

Importing this module imports scikit-learn; a run does not.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from rct_ray.transform.basis import Array, Basis
from rct_ray.transform.climb import climb
from rct_ray.transform.moments import CoordinateMoments, coordinate_moments
from rct_ray.transform.spectrum import components_needed, eigendecomposition, participation_ratio
from rct_ray.transform.stages import DCTStage, FixedStage, GaussianStage, HaarStage, SVDStage


class _LinearCode(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Codes `(X - mean_) encoder_`, decoded by `Z components_ + mean_`."""

    encoder_: Array
    components_: Array
    mean_: Array

    def _validated(self, X: ArrayLike, *, reset: bool) -> Array:
        return np.asarray(validate_data(self, X, dtype=np.float64, reset=reset))

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def transform(self, X: ArrayLike) -> Array:
        """Code rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)

        Returns
        -------
        ndarray of shape (n_rows, n_components), float64
        """
        check_is_fitted(self)
        return np.asarray((self._validated(X, reset=False) - self.mean_) @ self.encoder_)

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Rebuild rows from their codes.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_components)

        Returns
        -------
        ndarray of shape (n_rows, n_columns), float64
        """
        check_is_fitted(self)
        return np.asarray(np.asarray(X, dtype=np.float64) @ self.components_ + self.mean_)


class _FixedBasis(_LinearCode):
    """A basis that depends on the number of columns alone: fitting looks at the shape, not the values."""

    def __init__(self, n_components: int | None = None) -> None:
        self.n_components = n_components

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Lay the basis over the columns of X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
        y : ignored

        Raises
        ------
        ValueError
            If n_components exceeds the number of columns.
        """
        del y
        width = self._validated(X, reset=True).shape[1]
        stage = self._stage()
        if stage.components_for(width) < 1:
            raise ValueError(f"n_components must be at least 1, not {self.n_components}")
        self._keep(stage.basis(width))
        return self

    def _stage(self) -> FixedStage:
        raise NotImplementedError

    def _keep(self, basis: Basis) -> None:
        self.n_components_ = basis.frame.shape[1]
        self.mean_ = np.zeros(len(basis.frame))
        self.encoder_, self.components_ = basis.frame, basis.frame.T


class GaussianBasis(_FixedBasis):
    """Fit each row with K Gaussians of fixed centres and width, in closed form.

    The row model is w_j = sum_k A_k exp(-(j - mu_k)^2 / (2 sigma^2)), mu = linspace(0, d-1, K),
    sigma = width * d / K. With G^T = Q R, amplitudes are A = W G^+, isometric amplitudes B = W Q.

    Parameters
    ----------
    n_components : int, optional
        K; by default max(1, round(d / 32)).
    width : float, default 1.0
        sigma in units of d / K.
    metric : {"isometric", "amplitude"}, default "isometric"
        Coordinates of the code: orthonormal (distances between codes are distances between fitted rows), or
        the least-squares amplitudes of the Gaussians themselves.

    Attributes
    ----------
    components_ : ndarray of shape (K, d)
        Decoder: rows of Q^T, or the Gaussians G.
    encoder_ : ndarray of shape (d, K)
        Q, or G^+.
    gaussians_ : ndarray of shape (K, d)
        G.
    centres_ : ndarray of shape (K,)
    sigma_ : float
    mean_ : ndarray of shape (d,)
        Zeros: a fixed basis has no mean.
    n_components_, n_features_in_ : int
    """

    def __init__(
        self,
        n_components: int | None = None,
        width: float = 1.0,
        metric: Literal["isometric", "amplitude"] = "isometric",
    ) -> None:
        super().__init__(n_components)
        self.width = width
        self.metric = metric

    def _stage(self) -> FixedStage:
        if not self.width > 0:
            raise ValueError(f"width must be positive, not {self.width}")
        if self.metric not in ("isometric", "amplitude"):
            raise ValueError(f"metric must be 'isometric' or 'amplitude', not {self.metric!r}")
        return GaussianStage(self.n_components, self.width)

    def _keep(self, basis: Basis) -> None:
        super()._keep(basis)
        width = len(basis.frame)
        self.gaussians_ = basis.functions
        self.centres_ = np.linspace(0.0, width - 1.0, self.n_components_)
        self.sigma_ = self.width * width / self.n_components_
        if self.metric == "amplitude":
            self.encoder_, self.components_ = basis.frame @ basis.unmixing(), basis.functions


class DCTBasis(_FixedBasis):
    """Code each row by its K lowest orthonormal DCT-II coefficients.

    Parameters
    ----------
    n_components : int, optional
        K; by default max(1, round(d / 32)).

    Attributes
    ----------
    components_ : ndarray of shape (K, d)
    n_components_, n_features_in_ : int
    """

    def _stage(self) -> FixedStage:
        return DCTStage(self.n_components)


class HaarBasis(_FixedBasis):
    """Code each row by its K coarsest Haar coefficients; any number of columns.

    Parameters
    ----------
    n_components : int, optional
        K; by default max(1, round(d / 32)).

    Attributes
    ----------
    components_ : ndarray of shape (K, d)
    n_components_, n_features_in_ : int
    """

    def _stage(self) -> FixedStage:
        return HaarStage(self.n_components)


class _FromMoments(_LinearCode):
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
        step = climb(self.moments_, 0.0, (SVDStage(count),), None)[0].step
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
