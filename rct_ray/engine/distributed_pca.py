"""Principal components of rows that no single process holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import ThreadpoolController

from rct_ray.engine.resident import ResidentBlocks
from rct_ray.engine.row_passes import Blocks, Held, RowPasses, checked, cut, describe, scores
from rct_ray.transform.basis import Array
from rct_ray.transform.factors import block_moments, coordinate_factors, singular_spectrum
from rct_ray.transform.randomized import leading_spectrum, spectrum_reaching
from rct_ray.transform.spectrum import Spectrum, components_needed

Method: TypeAlias = Literal["auto", "gather", "moments", "tsqr", "randomized"]

METHODS: tuple[Method, ...] = ("auto", "gather", "moments", "tsqr", "randomized")
# Beyond this many columns K x K is no longer small.
_WIDEST_EXACT = 4096
# LAPACK's 32-bit workspace sizes overflow in a K x K eigenproblem from here on (numpy #25564).
_WIDEST_SQUARE = 32766


class DistributedPCA(BaseEstimator):  # type: ignore[misc]
    """PCA of blocks of rows that live on Ray actors.

    Results are equal to the bit for any number of workers and any order of completion: every block is
    summarised alone, by one BLAS thread, and summaries are merged in a binary tree over block numbers.

    Parameters
    ----------
    n_components : int, optional
        Components to keep; by default all min(n_rows, K).
    method : {"auto", "moments", "tsqr", "randomized", "gather"}, default "auto"
        - ``moments``: the K x K scatter in float64. It squares the condition number: singular values below
          about 1e-8 of the largest are rounding, as they are in float32 data.
        - ``tsqr``: triangular factors, never squared (Demmel, Grigori, Hoemmen & Langou 2008).
        - ``randomized``: subspace iteration, for more than 4,096 columns (Halko, Martinsson & Tropp 2011);
          exact where more than half of all components are wanted.
        - ``gather``: all rows in this process, one SVD.
        - ``auto``: ``randomized`` beyond 4,096 columns, else ``tsqr`` if a block is float64, else
          ``moments``.
    threshold : float, optional
        Keep as few components as hold this share of the variance, in (0, 1]; instead of `n_components`.
    n_workers : int, optional
        Actors of one CPU each, at most; by default one for each free CPU.
    random_state : int, RandomState or None, default 0
        Of ``randomized``.
    address : str, optional
        Of a running Ray cluster. Without one, Ray is joined if this process uses it already or RAY_ADDRESS
        names one, else a local one is started; `close` shuts down what was started.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, K), float64
        The largest-magnitude entry of each is positive.
    explained_variance_ : ndarray of shape (n_components_,)
        Eigenvalues of the scatter over n_rows - 1.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
    singular_values_ : ndarray of shape (n_components_,)
        Of the centred rows.
    mean_ : ndarray of shape (K,)
    n_components_, n_features_in_, n_samples_seen_ : int
    method_ : str
        The method that ran.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> with DistributedPCA(n_components=8, n_workers=2) as pca:  # doctest: +SKIP
    ...     pca.fit([partial(np.load, f"part{i}.npy") for i in range(100)])
    ...     for scores in pca.transform():
    ...         print(scores.shape)
    """

    components_: Array
    explained_variance_: Array
    explained_variance_ratio_: Array
    singular_values_: Array
    mean_: Array
    n_components_: int
    n_features_in_: int
    n_samples_seen_: int
    method_: str

    def __init__(
        self,
        n_components: int | None = None,
        *,
        method: Method = "auto",
        threshold: float | None = None,
        n_workers: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        address: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.threshold = threshold
        self.n_workers = n_workers
        self.random_state = random_state
        self.address = address

    def load(self, blocks: Blocks) -> Self:
        """Put blocks onto the actors, in place of those that are there; `fit()` then needs none.

        Parameters
        ----------
        blocks : ndarray of shape (n_rows, K), or iterable of blocks
            A block is an array of shape (n_i, K), n_i >= 0; a Ray object reference of one; or a callable
            without arguments that makes one inside a worker, so that its rows never pass through this process.
            Blocks may differ in floating dtype, and stay in it. Arrays given here must stay as they are until
            `close`: the worker that takes a dead one's place is sent them again.

        Raises
        ------
        ValueError
            If there are no rows, a block is not two-dimensional or numeric, or widths differ.
        """
        self._check_parameters()
        resident = self._running()
        self._held: list[Held] | None = None
        try:
            self._held = checked(resident.load(cut(blocks), describe))
        except BaseException:
            resident.forget()
            raise
        return self

    def fit(self, blocks: Blocks | None = None, y: object = None) -> Self:
        """Find the components.

        Parameters
        ----------
        blocks : ndarray of shape (n_rows, K), or iterable of blocks, optional
            As for `load`; by default the blocks that are loaded.
        y : ignored

        Raises
        ------
        ValueError
            If a block holds NaN or infinity (the message names it), for what `load` refuses, and if a
            parameter is out of range.
        """
        del y
        self._check_parameters()
        if blocks is not None:
            self.load(blocks)
        held = self._loaded()
        rows, width = sum(block.rows for block in held), held[0].width
        if (self.n_components or 0) > min(rows, width):
            raise ValueError(f"n_components={self.n_components} exceeds min(rows, K) = {min(rows, width)}")
        method = self._method_for(held)
        with _blas().limit(limits=1):
            solved = self._solve(method, RowPasses(self._running(), held))
        self.method_, self.n_samples_seen_, self.n_features_in_ = method, rows, width
        self.mean_, self.n_components_ = solved.mean, self._kept(solved, method)
        kept = self.n_components_
        self.components_ = np.ascontiguousarray(solved.spectrum.components[:kept])
        eigenvalues = solved.spectrum.eigenvalues[:kept]
        self.singular_values_ = np.sqrt(eigenvalues)
        self.explained_variance_ = eigenvalues / max(rows - 1, 1)
        self.explained_variance_ratio_ = eigenvalues / solved.total if solved.total else np.zeros(kept)
        return self

    def transform(self, blocks: Blocks | None = None) -> Any:
        """Scores of rows.

        Parameters
        ----------
        blocks : ndarray of shape (n_rows, K), or iterable of ndarray, optional
            By default the loaded blocks, where they are.

        Returns
        -------
        ndarray of shape (n_rows, n_components_), or iterator of such
            An array for an array; for blocks an iterator, in their order, that computes a few blocks ahead.
        """
        check_is_fitted(self)
        if blocks is None:
            self._loaded()
            passed = self._running().map(scores, self.mean_, self.components_)
            return (block for _, block in passed)
        if isinstance(blocks, np.ndarray) and blocks.ndim == 2:
            return scores(blocks, self.mean_, self.components_)
        return (scores(np.asarray(block), self.mean_, self.components_) for block in blocks)

    def fit_transform(self, blocks: Blocks, y: object = None) -> Any:
        """`fit`, then scores of the same rows: an array for an array, a list of arrays for blocks."""
        whole = isinstance(blocks, np.ndarray) and blocks.ndim == 2
        found = list(self.fit(blocks, y).transform())
        return np.concatenate(found) if whole else found

    def inverse_transform(self, X: NDArray[np.floating[Any]]) -> Array:
        """Rows that scores stand for, shape (n, n_components_) -> (n, K)."""
        check_is_fitted(self)
        return np.asarray(X @ self.components_ + self.mean_)

    def close(self) -> None:
        """End the actors, and the local Ray if it was started here. What was fitted stays."""
        resident: ResidentBlocks | None = self.__dict__.pop("_resident", None)
        self.__dict__.pop("_held", None)
        if resident is not None:
            resident.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        # Actors belong to this process.
        return {name: value for name, value in state.items() if name not in ("_resident", "_held")}

    def _check_parameters(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, not {self.threshold}")
        if self.n_components is None:
            return
        if self.threshold is not None:
            raise ValueError("give n_components or threshold, not both")
        if not isinstance(self.n_components, int | np.integer) or self.n_components < 1:
            raise ValueError(f"n_components must be a whole number from 1, not {self.n_components!r}")

    def _running(self) -> ResidentBlocks:
        if getattr(self, "_resident", None) is None:
            self._resident = ResidentBlocks(self.n_workers, self.address)
        return self._resident

    def _loaded(self) -> list[Held]:
        held: list[Held] | None = getattr(self, "_held", None)
        if not held:
            raise ValueError("no blocks are loaded: give some to fit or load")
        return held

    def _method_for(self, held: Sequence[Held]) -> Method:
        width, double = held[0].width, any(block.double for block in held)
        method: Method = self.method
        if method == "auto":
            method = "randomized" if width > _WIDEST_EXACT else "tsqr" if double else "moments"
        if method == "moments" and width > _WIDEST_SQUARE:
            raise ValueError(f"{width} columns are too many for moments; use method='randomized'")
        return method

    def _solve(self, method: Method, passes: RowPasses) -> _Solved:
        if method == "moments":
            moments = passes.merged(block_moments, passes.origin)
            return _Solved(passes.origin + moments.mean, moments.spectrum(), float(np.trace(moments.scatter)))
        if method == "tsqr":
            factors = passes.merged(coordinate_factors, passes.origin)
            total = float(np.vdot(factors.factor, factors.factor))
            return _Solved(passes.origin + factors.mean, singular_spectrum(factors.factor), total)
        if method == "gather":
            offsets = passes.gathered()
            mean = offsets.mean(axis=0)
            offsets -= mean
            return _Solved(passes.origin + mean, singular_spectrum(offsets), float(np.vdot(offsets, offsets)))
        passes.centre()
        seed = int(check_random_state(self.random_state).randint(1 << 31))
        if self.threshold is not None:
            spectrum = spectrum_reaching(passes, self.threshold, passes.total, seed=seed)
        else:
            count = self.n_components or min(passes.rows, passes.width)
            spectrum = leading_spectrum(passes, count, seed=seed)
        return _Solved(passes.mean, spectrum, passes.total)

    def _kept(self, solved: _Solved, method: Method) -> int:
        found = min(len(solved.spectrum.eigenvalues), self.n_samples_seen_)
        if self.n_components is not None:
            return int(self.n_components)
        if self.threshold is None or method == "randomized":
            return found
        return min(found, components_needed(solved.spectrum.eigenvalues, self.threshold))


@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    mean: Array
    spectrum: Spectrum
    total: float


@cache
def _blas() -> Any:
    """The BLAS of this process; finding it takes milliseconds."""
    return ThreadpoolController()
