"""SymmetricNMF: A ~ Z Z^T with Z >= 0, for similarities of samples (Kuang, Ding and Park 2012)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.core.checks import check_choice, check_integer
from deepnmf_jax.decomposition.codes import encode, find_codes
from deepnmf_jax.decomposition.estimator import FIT_LIMIT
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.io.checked import Data, read_data
from deepnmf_jax.decomposition.io.nonzeros import on_scipy
from deepnmf_jax.decomposition.io.saving import Kind
from deepnmf_jax.decomposition.signed_estimator import SignedEstimator
from deepnmf_jax.decomposition.updates.loop import Descent, descend, history_length, over_starts, relative_fall
from deepnmf_jax.decomposition.updates.objective import Penalties, Target, squared_error
from deepnmf_jax.decomposition.updates.solvers import SolverSettings
from deepnmf_jax.decomposition.updates.starts import best_scale, compiled_start, mean_of, random_factor
from deepnmf_jax.decomposition.updates.symmetric import (
    Columns,
    columns_of,
    lowest_eigenvalue,
    symmetric_sweep,
)

INITS = ("nndsvda", "random")
# Of the largest entry: what A and its transpose may differ by, from rounding.
ASYMMETRY = 1e-5


@partial(jax.jit, static_argnames=("length",))
def solve(
    start: Array | Descent[Columns], stop_at: int, a: Array | BCOO, below: float, tol: float, length: int
) -> Descent[Columns]:
    """Symmetric NMF of A (n, n) from every start Z^T (r, k, n) at once, until the objective hardly falls."""

    def one(now: Array | Descent[Columns]) -> Descent[Columns]:
        begin = now if isinstance(now, Descent) else columns_of(now, a)
        return descend(
            begin,
            stop_at,
            lambda now: symmetric_sweep(now, a, below),
            lambda now: squared_error(a, now.zt, now.zt),
            lambda before, now, _: relative_fall(before, now, tol) | (now == 0),
            length=length,
        )

    return over_starts(one, start)


class SymmetricNMF(SignedEstimator):
    """A ~ Z Z^T for a symmetric matrix A (n, n) of similarities, Z (n, k) >= 0: clusters of a graph or of a kernel.

    Minimises 0.5 ||A - Z Z^T||^2; the dictionary is D = Z^T. Each column is set to the minimum of a majoriser
    (updates/symmetric.py), so that the objective never rises. `Z.argmax(1)` is a clustering.

    Args:
        nb_concepts: k; `n_components` is another name for it.
        device: as in `NMF`.
        tol: a fit ends when the objective falls by less than tol times itself over ten sweeps.
        verbose: a progress bar in `fit` and `encode`.
        n_components: k.
        init: "nndsvda" or "random".
        max_iter: sweeps of `fit` and `encode`; None: 500 and 300.
        random_state: seed of random starts.
        dtype: as in `NMF`.
        n_restarts: so many starts at once (the first by `init`, the others random); the best one is kept.

    Raises:
        ValueError: an argument outside what it allows.
    """

    solvers = ("columns",)
    saved_arrays: Mapping[str, Kind] = {"_d": Kind("kp", nonnegative=True)}

    def __init__(
        self,
        nb_concepts: int | None = None,
        device: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        *,
        n_components: int | None = None,
        init: str = "nndsvda",
        max_iter: int | None = None,
        random_state: int = 0,
        dtype: str | None = None,
        n_restarts: int = 1,
    ) -> None:
        super().__init__(
            nb_concepts,
            n_components,
            solver="columns",
            device=device,
            tol=tol,
            verbose=verbose,
            l1_penalty=0.0,
            max_iter=max_iter,
            random_state=random_state,
            dtype=dtype,
        )
        self.init = check_choice("init", init, INITS)
        self.n_restarts = check_integer("n_restarts", n_restarts, 1)

    def fit(self, A: Any, max_iter: int | None = None) -> tuple[Any, Any]:
        """Z (n, k) and D = Z^T (k, n) for a symmetric A (n, n), dense or sparse, of any sign; of the kind of A.

        Raises:
            ValueError: A is no matrix of finite numbers, not square or not symmetric.
        """
        limit = self._limit(max_iter, FIT_LIMIT)
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(A, dtype)
            a = _symmetric(data.a)
            below = lowest_eigenvalue(a)
            self._begin(A, data)
            if data.zero:
                self._d = jnp.zeros((self.nb_concepts, a.shape[0]), dtype)
                self._report(0, True, np.zeros(1), 0.0)
                return self._restore(self._d.T), self.D
            compiled = partial(solve, a=a, below=below, tol=self.tol, length=history_length(limit))
            done = self._descend(compiled, self._starts(a), limit)
            best = int(np.nanargmin(np.asarray(done.value)))
            done = jax.tree.map(lambda x: x[best], done)
            self._d = done.state.zt * self._dictionary_unit()
            self._report_descent(done, float(jnp.sqrt(2 * jnp.maximum(done.value, 0))))
            return self._restore(self._d.T), self.D

    def _starts(self, a: Array | BCOO) -> Array:
        """Z^T (r, k, n) of every restart, each such that Z Z^T is as close to A as one number can make it."""
        keys, starts = jax.random.split(self._key(), self.n_restarts), []
        size = abs(a) if not isinstance(a, BCOO) else BCOO((abs(a.data), a.indices), shape=a.shape)
        for i, key in enumerate(keys):
            if i == 0 and self.init != "random":
                zt = compiled_start(key, size, self.nb_concepts, self.init)[0]
            else:
                zt = random_factor(key, mean_of(size), (self.nb_concepts, a.shape[0]))
            starts.append(zt * jnp.sqrt(best_scale(a, zt, zt)))
        return jnp.stack(starts)

    def _read(self, a: Any, dtype: np.dtype, **more: Any) -> Data:
        return read_data(a, dtype, self.device, nonnegative=False, **more)

    def _codes(self, data: Data, limit: int, tol: float) -> Array:
        d = self._dictionary() / self._dictionary_unit()
        with progress.bar(self.verbose, limit, "encode", shows="gradient") as report:
            return find_codes(Target(data.a), d, SolverSettings(), limit, tol, report)

    def _differentiable_codes(self, a: Array, d: Array, limit: int, tol: float) -> Array:
        return encode(a, d / self._dictionary_unit(), Penalties(), None, SolverSettings(), limit, tol)


def _symmetric(a: Array | BCOO) -> Array | BCOO:
    """A (n, n), freed of rounding. ValueError where it is not symmetric."""
    if a.shape[0] != a.shape[1]:
        raise ValueError(
            f"A has shape {a.shape}; symmetric NMF takes similarities of n samples, (n, n): A @ A.T, a kernel, or the "
            "adjacency matrix of a graph"
        )
    matrix = on_scipy(a).astype(np.float64) if isinstance(a, BCOO) else np.asarray(a)
    size, rest = float(abs(matrix).max()), float(abs(matrix - matrix.T).max())
    if rest > ASYMMETRY * size:
        raise ValueError(
            f"A is not symmetric: it differs from its transpose by up to {rest / size:.1e} of its largest entry; pass "
            "(A + A.T) / 2"
        )
    return a if isinstance(a, BCOO) else 0.5 * (a + a.T)
