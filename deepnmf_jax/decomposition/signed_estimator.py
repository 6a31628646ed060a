"""What the relatives of NMF share: data of any sign, and an L1 penalty of the codes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array

from deepnmf_jax.compiled import at_once
from deepnmf_jax.core.checks import check_number
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, Estimator
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.io.checked import Data, dense, is_traced, read_data
from deepnmf_jax.decomposition.io.units import unit_of_objective
from deepnmf_jax.decomposition.updates.loop import Descent, in_view
from deepnmf_jax.decomposition.updates.objective import at_unit


class SignedEstimator(Estimator):
    """Base of the relatives of NMF: data of any sign, and an L1 penalty of the codes."""

    def __init__(self, nb_concepts: int | None, n_components: int | None, *, l1_penalty: float, **others: Any) -> None:
        super().__init__(nb_concepts, n_components, **others)
        self.l1_penalty = check_number("l1_penalty", l1_penalty, 0)

    def _codes(self, data: Data, limit: int, tol: float) -> Array:
        """Z^T (k, n) of scaled data for the dictionary: the same computation in `fit` and in `encode`."""
        raise NotImplementedError

    def _differentiable_codes(self, a: Array, d: Array, limit: int, tol: float) -> Array:
        """Z (n, k) of scaled data for the dictionary d in the user's unit, inside jit, grad or vmap."""
        raise NotImplementedError

    def _begin(self, x: Any, data: Data) -> None:
        unit_of_objective(data.scale)
        super()._begin(x, data)

    def _l1(self, p: int, scale: float, fitted: float | None = None) -> float:
        """Weight of sum Z beside half the squared error, of data divided by `scale`: of mean squared error
        + l1 mean |Z|, times n p / 2. The dictionary is of data divided by `fitted`; None: that of the fit."""
        return at_unit(self.l1_penalty * p / (2 * self.nb_concepts), 1 / scale / self._dictionary_unit(fitted), scale)

    def _read(self, a: Any, dtype: np.dtype, **more: Any) -> Data:
        return read_data(a, dtype, self.device, nonnegative=False, sparse=False, **more)

    def _descend(self, advance: Callable[[Any, int], Descent], start: Any, limit: int) -> Descent:
        with progress.bar(self.verbose, limit, "fit", unit_of_objective(self._scale)) as report:
            return in_view(advance, start, limit, report)

    def _report_descent(self, done: Descent, error: float) -> None:
        history = np.asarray(done.history, np.float64)[: int(done.looks)] * unit_of_objective(self._scale)
        self._report(int(done.sweeps), bool(done.converged), history, error * self._scale)

    def encode(self, A: Any, max_iter: int | None = None, tol: float | None = None) -> Any:
        """Codes Z (n, k) of A (n, p) for the fitted dictionary: deterministic, on the fitted data those of `fit`.

        Under `jax.grad`, `jax.jit` and `jax.vmap` A may be traced (its values are not checked then); the gradient is
        that of the exact codes.

        Raises:
            ValueError: before `fit`, for bad values, for another number of features.
        """
        d = self._dictionary()
        limit, tol = self._limit(max_iter, ENCODE_LIMIT), self._tolerance(tol)
        if is_traced(A):
            a, _, d = self._read_traced(A)
            return self._differentiable_codes(dense(a), d, limit, tol) * (self._scale / self._dictionary_unit())
        with at_once(), arrays.with_precision(d.dtype):
            data = self._read_near(A, d.dtype, features=d.shape[1])
            zt = self._codes(data, limit, tol)
            return self._restore(zt.T * self._codes_unit(data), arrays.kind_of(A), A)
