"""What all estimators of one linear code share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from rct_ray.transform.basis import Array


class LinearCode(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
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
