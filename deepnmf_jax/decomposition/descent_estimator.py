"""What SemiNMF, ConvexNMF and ArchetypalAnalysis share beyond `Estimator`: any sign, an L1 penalty, `descend`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array

from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, Estimator
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.io.checked import Data, read_data
from deepnmf_jax.decomposition.updates.loop import Descent, Factors, in_view


class DescentEstimator(Estimator):
    """Base of the estimators that `loop.settle` fits."""

    def __init__(
        self,
        nb_concepts: int | None,
        device: Any,
        solver: str,
        tol: float,
        verbose: bool,
        l1_penalty: float,
        n_components: int | None,
        max_iter: int | None,
        random_state: int,
        dtype: str | None,
    ) -> None:
        super().__init__(nb_concepts, device, solver, tol, verbose, n_components, max_iter, random_state, dtype)
        if not (isinstance(l1_penalty, (int, float)) and 0 <= l1_penalty < math.inf):
            raise ValueError(f"l1_penalty = {l1_penalty!r}, but it must be a number of at least 0")
        self.l1_penalty = l1_penalty

    def _codes(self, data: Data, limit: int, tol: float) -> Array:
        """Z^T (k, n) of scaled data for the dictionary: the same computation in `fit` and in `encode`."""
        raise NotImplementedError

    def _codes_unit(self) -> float:
        """Unit of the codes: what those of scaled data are multiplied with."""
        raise NotImplementedError

    def _read(self, a: Any, dtype: np.dtype, **more: Any) -> Data:
        return read_data(arrays.without_sparse(a), dtype, self.device, nonnegative=False, **more)

    def _begin(self, a: Any, data: Data) -> None:
        self._forget()
        self._remember_kind(a)
        self._scale = data.scale

    def _descend(self, advance: Callable[[Any, int], Descent[Factors]], start: Factors, limit: int) -> Descent[Factors]:
        with progress.bar(self.verbose, limit, "fit", self._scale**2) as report:
            return in_view(advance, start, limit, report)

    def _report_descent(self, done: Descent, error: float) -> None:
        history = np.asarray(done.history)[: int(done.looks)] * self._scale**2
        self._report(int(done.sweeps), bool(done.converged), history, error * self._scale)

    def encode(self, A: Any, max_iter: int | None = None, tol: float | None = None) -> Any:
        """Codes Z (n, k) of A (n, p) for the fitted dictionary: deterministic, on the fitted data those of `fit`.

        Raises:
            ValueError: before `fit`, for bad values, for another number of features.
        """
        d = self._dictionary()
        with arrays.with_precision(d.dtype):
            data = self._read(A, d.dtype, features=d.shape[1], scale=self._scale)
            zt = self._codes(data, self._limit(max_iter, ENCODE_LIMIT), self.tol if tol is None else tol)
            return self._restore(zt.T * self._codes_unit(), arrays.kind_of(A), A)
