"""SemiNMF: A ~ Z D with Z >= 0 and D of any sign, for data of any sign (Ding, Li and Jordan 2010)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.core.checks import check_choice
from deepnmf_jax.decomposition.codes import encode, find_codes
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, FIT_LIMIT
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.io.checked import Data, dense
from deepnmf_jax.decomposition.signed_estimator import SignedEstimator
from deepnmf_jax.decomposition.updates.hals import coordinate_sweep
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.loop import Descent, descend, history_length, small_fall
from deepnmf_jax.decomposition.updates.multiplicative import square_root_step
from deepnmf_jax.decomposition.updates.objective import Penalties, Target, objective, square_sum
from deepnmf_jax.decomposition.updates.projected_gradient import accelerated_gradient
from deepnmf_jax.decomposition.updates.solvers import SolverSettings
from deepnmf_jax.decomposition.updates.starts import random_factor


def least_squares_dictionary(a: Array, zt: Array, d: Array) -> Array:
    """Best D (k, p) of any sign for Z^T (k, n): (Z^T Z)^-1 Z^T A, with a ridge of rounding size relative to the trace.

    An atom whose codes are all 0 keeps its row d (k, p), which changes nothing and lets it come back.
    """
    n = product(zt, zt.T)
    k = n.shape[0]
    ridge = k * jnp.finfo(n.dtype).eps * jnp.trace(n) / k
    ridge = jnp.where(ridge > 0, ridge, 1)
    solved = jax.scipy.linalg.solve(n + ridge * jnp.eye(k, dtype=n.dtype), product(zt, a), assume_a="pos")
    return jnp.where(jnp.any(zt > 0, axis=1)[:, None], solved, d)


def square_root_codes(zt: Array, c: Array, b: Array, l1: Array | float = 0.0) -> Array:
    """Z <- Z sqrt((C+ + B- Z) / (C- + B+ Z + l1)) on Z^T (k, n); C = D A^T, B = D D^T (Ding et al., eq. 8)."""
    above = jnp.maximum(c, 0) + product(jnp.maximum(-b, 0), zt)
    below = jnp.maximum(-c, 0) + product(jnp.maximum(b, 0), zt) + l1
    return square_root_step(zt, above, below)


Pair = tuple[Array, Array]
# name -> one improvement of Z^T (k, n), from C = D A^T (k, n), B = D D^T (k, k) and the L1 penalty.
SOLVERS: dict[str, Callable[[Array, Array, Array, Array | float], Array]] = {
    "hals": lambda zt, c, b, l1: coordinate_sweep(zt, c - l1, b),
    "mu": square_root_codes,
    "pgd": lambda zt, c, b, l1: accelerated_gradient(zt, c - l1, b),
}


def codes_step(zt: Array, d: Array, a: Array, l1: Array | float, solver: str) -> Array:
    """One improvement of Z^T (k, n) for a dictionary of any sign, by one of `SOLVERS`."""
    return SOLVERS[solver](zt, product(d, a.T), product(d, d.T), l1)


@partial(jax.jit, static_argnames=("solver", "length"))
def solve(
    start: Pair | Descent[Pair], stop_at: int, a: Array, l1: Array | float, solver: str, tol: float, length: int
) -> Descent[Pair]:
    """SemiNMF of A (n, p) from Z^T (k, n), D (k, p): codes, then dictionary, until the objective settles."""
    target = Target(a, Penalties(l1_z=l1))

    def step(factors: Pair) -> Pair:
        zt = codes_step(*factors, a, l1, solver)
        return zt, least_squares_dictionary(a, zt, factors[1])

    def value(factors: Pair) -> Array:
        return objective(*factors, target)

    return descend(start, stop_at, step, value, small_fall(tol, 0.5 * square_sum(a)), length=length)


_dictionary = jax.jit(least_squares_dictionary)


class SemiNMF(SignedEstimator):
    """A ~ Z D with codes Z (n, k) >= 0 and a dictionary D (k, p) of any sign: the constraint is on Z alone.

    Args:
        nb_concepts: k; `n_components` is another name for it.
        solver: "hals" (coordinate descent, the fastest), "mu" (square-root rule of Ding et al.), "pgd".
        device: as in `NMF`.
        tol: a fit ends when the objective falls by less than 0.01 tol ||A||^2 / 2 over ten sweeps.
        l1_penalty: weight of the mean of |Z| against the mean squared error, as in overcomplete; every solver.
        verbose: a progress bar in `fit` and `encode`.
        n_components: k.
        max_iter: sweeps of `fit` and `encode`; None: 500 and 300.
        random_state: seed of the start.
        dtype: as in `NMF`.

    Raises:
        ValueError: an argument outside what it allows.
    """

    solvers = tuple(SOLVERS)

    def __init__(
        self,
        nb_concepts: int | None = None,
        solver: str = "hals",
        device: Any = None,
        tol: float = 1e-4,
        l1_penalty: float = 0.0,
        verbose: bool = False,
        *,
        n_components: int | None = None,
        max_iter: int | None = None,
        random_state: int = 0,
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            nb_concepts,
            n_components,
            solver=solver,
            device=device,
            tol=tol,
            verbose=verbose,
            l1_penalty=l1_penalty,
            max_iter=max_iter,
            random_state=random_state,
            dtype=dtype,
        )

    @property
    def _settings(self) -> SolverSettings:
        # Of the solver as it is now: it may be set to another after the constructor has checked it.
        return SolverSettings(check_choice("solver", self.solver, self.solvers))

    def fit(self, A: Any, max_iter: int | None = None) -> tuple[Any, Any]:
        """Z (n, k) and D (k, p) for A (n, p) of any sign, of the kind of A. ValueError for what is no such matrix."""
        limit = self._limit(max_iter, FIT_LIMIT)
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(A, dtype)
            l1, solver = self._l1(data.a.shape[1], data.scale, data.scale), self._settings.solver
            self._begin(A, data)
            a, root = dense(data.a), self._dictionary_unit()
            zt = random_factor(self._key(), jnp.mean(jnp.abs(a)), (self.nb_concepts, a.shape[0]))
            nothing = jnp.zeros((self.nb_concepts, a.shape[1]), dtype)
            if data.zero:
                self._d = nothing
                self._report(0, True, np.zeros(1), 0.0)
                return self._restore(jnp.zeros_like(zt).T), self.D
            compiled = partial(solve, a=a, l1=l1, solver=solver, tol=self.tol, length=history_length(limit))
            done = self._descend(compiled, (zt, _dictionary(a, zt, nothing)), limit)
            self._d = done.state[1] * root
            zt = self._codes(data, self._limit(None, ENCODE_LIMIT), self.tol)
            self._report_descent(done, float(jnp.linalg.norm(a - product(zt.T, done.state[1]))))
            return self._restore(zt.T * root), self.D

    def _codes(self, data: Data, limit: int, tol: float) -> Array:
        target = Target(data.a, Penalties(l1_z=self._l1(data.a.shape[1], data.scale)))
        d = self._dictionary() / self._dictionary_unit()
        with progress.bar(self.verbose, limit, "encode", shows="gradient") as report:
            return find_codes(target, d, self._settings, limit, tol, report)

    def _differentiable_codes(self, a: Array, d: Array, limit: int, tol: float) -> Array:
        penalties, d = Penalties(l1_z=self._l1(a.shape[1], self._scale)), d / self._dictionary_unit()
        return encode(a, d, penalties, None, self._settings, limit, tol)

    def init_random_d(self, A: Any, Z: Any = None, key: Array | None = None) -> Any:  # type: ignore[override]
        """Least-squares dictionary for the codes Z (n, k), by default random ones; of the kind of A."""
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            a = arrays.to_dense(A, dtype)
            z = arrays.to_dense(self.init_random_z(A, key) if Z is None else self._checked_codes(Z), dtype)
            d = _dictionary(a, z.T, jnp.zeros((self.nb_concepts, a.shape[1]), dtype))
            return self._restore(d, arrays.kind_of(A), A)
