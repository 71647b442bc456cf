"""The whole tower as one scikit-learn estimator."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from rct_ray.transform.affine_code import AffineCode, Metric, Step
from rct_ray.transform.basis import Array
from rct_ray.transform.encode import Encoder
from rct_ray.transform.level import honest_level
from rct_ray.transform.moments import RowMoments
from rct_ray.transform.stages import FixedStage, LearnedStage, RowStage, Stage, needs_rows
from rct_ray.transform.tower import tower
from rct_ray.transform.tower_language import DEFAULT_TOWER, parse_tower


class Tower(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Code rows by a tower of transforms, and account for every level.

    Parameters
    ----------
    tower : str, default "gaussian > pca(0.95) > pca(0.95) > pca(0.95)"
    metric : {"isometric", "amplitude"}, default "isometric"
    seed : int, default 0
        Of the noise that the nulls are measured on.

    Attributes
    ----------
    levels_ : list of Level
        Figures of every level, the rows themselves first.
    fixed_point_ : int or None
        First level whose successor does not charge fewer parameters; None if the tower ends before that.
    honest_level_ : int
        Level with the shortest description at R2 = 0.99.
    codes_ : list of AffineCode
        Encoder and decoder of every level (entry 0: the orthonormal coordinates that level 1 starts from).
    n_components_ : int
        Numbers a row of the topmost code has.
    n_features_in_ : int
    """

    def __init__(self, tower: str = DEFAULT_TOWER, metric: Metric = "isometric", seed: int = 0) -> None:
        self.tower = tower
        self.metric = metric
        self.seed = seed

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Climb the tower over all rows at once.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
        y : ignored

        Raises
        ------
        TowerSyntaxError
            If the tower can't be read.
        ValueError
            If its first stage wants more components than there are columns.
        """
        del y
        rows = np.asarray(validate_data(self, X, dtype=np.float64))
        self._climb(self._encoder(rows.shape[1]).encode(rows))
        return self

    def partial_fit(self, X: ArrayLike, y: object = None) -> Self:
        """Add a block of rows and climb again.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)
        y : ignored
        """
        del y
        first = not hasattr(self, "moments_")
        rows = np.asarray(validate_data(self, X, dtype=np.float64, reset=first))
        block = self._encoder(rows.shape[1]).encode(rows)
        self._climb(block if first else self.moments_.merge(block))
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Code rows at the topmost level.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns)

        Returns
        -------
        ndarray of shape (n_rows, n_components_), float64
        """
        check_is_fitted(self)
        return self.codes_[-1].encode(np.asarray(validate_data(self, X, dtype=np.float64, reset=False)))

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Rebuild rows from topmost codes.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_components_)

        Returns
        -------
        ndarray of shape (n_rows, n_columns), float64
        """
        check_is_fitted(self)
        return self.codes_[-1].decode(np.asarray(X, dtype=np.float64))

    def _encoder(self, width: int) -> Encoder:
        if self.metric not in ("isometric", "amplitude"):
            raise ValueError(f"metric must be 'isometric' or 'amplitude', not {self.metric!r}")
        first = self._stages()[0]
        if isinstance(first, FixedStage):
            return Encoder(first.basis(width).frame, columns=True)
        if isinstance(first, LearnedStage) and first.components_for(width) > width:
            raise ValueError(f"{first.spec} wants more components than the {width} columns there are")
        return Encoder(None, columns=True)

    def _stages(self) -> tuple[Stage, ...]:
        stages = parse_tower(self.tower)
        if needs_rows(stages):
            kind = next(stage.spec for stage in stages if isinstance(stage, RowStage))
            raise ValueError(
                f"{kind} codes all rows together or rounds them, which only a run (rct_ray.run) does"
            )
        return stages

    def _climb(self, moments: RowMoments) -> None:
        if not moments.weights.finite:
            raise ValueError("the squares of the rows overflow float64: scale them down")
        stages, width = self._stages(), self.n_features_in_
        self.moments_ = moments
        ascent = tower(moments, width, stages, self.metric, (self.seed,))
        self.levels_ = ascent.levels
        first = stages[0]
        frame = first.basis(width).frame if isinstance(first, FixedStage) else np.eye(width)
        self.codes_ = [AffineCode.of_frame(frame)]
        for rung in ascent.rungs:
            assert isinstance(rung.step, Step)
            self.codes_.append(self.codes_[-1].then(rung.step))
        self.n_components_ = ascent.rungs[-1].step.n_components
        self.fixed_point_ = next((level.level for level in self.levels_ if level.fixed_point), None)
        self.honest_level_ = honest_level(self.levels_)

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)
