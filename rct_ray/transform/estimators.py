"""The fixed bases as scikit-learn estimators, for people who want one fit alone.

Importing this module imports scikit-learn; a run does not.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from rct_ray.transform.basis import Basis
from rct_ray.transform.linear_code import LinearCode
from rct_ray.transform.stages import DCTStage, FixedStage, GaussianStage, HaarStage


class _FixedBasis(LinearCode):
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
