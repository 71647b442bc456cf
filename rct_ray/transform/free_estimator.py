"""Free Gaussians as a scikit-learn estimator."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from rct_ray.transform.basis import Array, default_components
from rct_ray.transform.curve_fit import fit_curve_fit
from rct_ray.transform.free_gaussians import FreeFit, decode_gaussians, fit_free


class FreeGaussians(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Code each row as K Gaussians with amplitudes, centres and widths of its own.

    The code of a row is its K amplitudes, K centres and K widths, each row fitted when it is transformed; fitting
    the estimator looks at the number of columns alone.

    Parameters
    ----------
    n_components : int, optional
        K; by default max(1, round(d / 32)).
    method : {"free", "curve_fit"}, default "free"
        All rows at once by variable projection, or `scipy.optimize.curve_fit` row by row.
    max_iterations : int, optional
        Steps to try, or calls of `curve_fit`'s model; by default 200 steps, or scipy's number of calls.

    Attributes
    ----------
    n_components_ : int
        K; a code has 3 K numbers.
    n_features_in_ : int
    """

    def __init__(
        self,
        n_components: int | None = None,
        method: Literal["free", "curve_fit"] = "free",
        max_iterations: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.max_iterations = max_iterations

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Look at the shape of X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
        y : ignored

        Raises
        ------
        ValueError
            If a parameter is out of range, or n_components exceeds the number of columns.
        """
        del y
        width = validate_data(self, X, dtype=np.float64).shape[1]
        count = default_components(width) if self.n_components is None else self.n_components
        if self.method not in ("free", "curve_fit"):
            raise ValueError(f"method must be 'free' or 'curve_fit', not {self.method!r}")
        if not 1 <= count <= width:
            raise ValueError(f"n_components must be from 1 to the {width} columns, not {count}")
        if self.max_iterations is not None and self.max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, not {self.max_iterations}")
        self.n_components_ = count
        return self

    def fit_rows(self, X: ArrayLike) -> FreeFit:
        """Fit rows, and say of each how well it went.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)

        Returns
        -------
        FreeFit
        """
        check_is_fitted(self)
        rows = np.asarray(validate_data(self, X, dtype=np.float64, reset=False))
        if self.method == "curve_fit":
            return fit_curve_fit(rows, self.n_components_, maxfev=self.max_iterations)
        if self.max_iterations is None:
            return fit_free(rows, self.n_components_)
        return fit_free(rows, self.n_components_, max_iterations=self.max_iterations)

    def transform(self, X: ArrayLike) -> Array:
        """Code rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)

        Returns
        -------
        ndarray of shape (n_rows, 3 n_components_), float64
            Amplitudes, centres, widths.
        """
        fitted = self.fit_rows(X)
        return np.concatenate([fitted.amplitudes, fitted.centres, fitted.widths], axis=1)

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Rebuild rows from their codes.

        Parameters
        ----------
        X : array-like of shape (n_rows, 3 n_components_)

        Returns
        -------
        ndarray of shape (n_rows, n_columns), float64
        """
        check_is_fitted(self)
        amplitudes, centres, widths = np.split(np.asarray(X, dtype=np.float64), 3, axis=1)
        return decode_gaussians(amplitudes, centres, widths, self.n_features_in_)

    @property
    def _n_features_out(self) -> int:
        return 3 * int(self.n_components_)
