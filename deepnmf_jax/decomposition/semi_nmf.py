"""SemiNMF: A ~ Z D with Z >= 0 and D of any sign, for data of any sign (Ding, Li and Jordan 2010)."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.codes import compiled_search
from deepnmf_jax.decomposition.descent_estimator import DescentEstimator
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, FIT_LIMIT
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.io.checked import Data, dense
from deepnmf_jax.decomposition.updates import quadratic
from deepnmf_jax.decomposition.updates.loop import Descent, Factors, history_length, in_view, settle
from deepnmf_jax.decomposition.updates.objective import Penalties, objective, square_sum
from deepnmf_jax.decomposition.updates.quadratic import product
from deepnmf_jax.decomposition.updates.solvers import Settings
from deepnmf_jax.decomposition.updates.starts import random_factor

SOLVERS = ("hals", "mu", "pgd")


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


def square_root_step(zt: Array, c: Array, b: Array, l1: Array | float = 0.0) -> Array:
    """Z <- Z sqrt((C+ + B- Z) / (C- + B+ Z + l1)) on Z^T (k, n); C = D A^T, B = D D^T (Ding et al., eq. 8)."""
    above = jnp.maximum(c, 0) + product(jnp.maximum(-b, 0), zt)
    below = jnp.maximum(-c, 0) + product(jnp.maximum(b, 0), zt) + l1
    return quadratic.square_root_step(zt, above, below)


def codes_step(zt: Array, d: Array, a: Array, l1: Array | float, settings: Settings) -> Array:
    """One improvement of Z^T (k, n) for a dictionary of any sign; coordinate descent unless the solver says else."""
    c, b = product(d, a.T), product(d, d.T)
    if settings.solver == "mu":
        return square_root_step(zt, c, b, l1)
    if settings.solver == "pgd":
        return quadratic.accelerated_gradient(zt, c - l1, b, settings.gradient_steps)
    for _ in range(settings.inner):
        zt = quadratic.coordinate_sweep(zt, c - l1, b, settings.block)
    return zt


@partial(jax.jit, static_argnames=("settings", "length"))
def solve(
    start: Factors | Descent[Factors],
    a: Array,
    l1: Array | float,
    settings: Settings,
    tol: float,
    stop_at: int,
    length: int,
) -> Descent[Factors]:
    """SemiNMF of A (n, p) from Z^T (k, n), D (k, p): codes, then dictionary, until the objective settles."""
    penalties = Penalties(l1_z=l1)

    def step(factors: Factors) -> Factors:
        zt = codes_step(*factors, a, l1, settings)
        return zt, least_squares_dictionary(a, zt, factors[1])

    def value(factors: Factors) -> Array:
        return objective(a, *factors, penalties)

    return settle(start, step, value, 0.5 * square_sum(a), tol, stop_at, length)


_dictionary = jax.jit(least_squares_dictionary)


class SemiNMF(DescentEstimator):
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

    solvers = SOLVERS

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
            nb_concepts, device, solver, tol, verbose, l1_penalty, n_components, max_iter, random_state, dtype
        )

    def _l1(self, p: int, scale: float) -> float:
        # mean squared error + l1 mean |Z|, times n p / 2; Z has the unit sqrt(scale).
        return self.l1_penalty * p / (2 * self.nb_concepts) * scale**-1.5

    def fit(self, A: Any, max_iter: int | None = None) -> tuple[Any, Any]:
        """Z (n, k) and D (k, p) for A (n, p) of any sign, of the kind of A. ValueError for what is no such matrix."""
        limit = self._limit(max_iter, FIT_LIMIT)
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(A, dtype)
            self._begin(A, data)
            root = self._codes_unit()
            zt = self._start(data)
            if data.zero:
                self._d = jnp.zeros((self.nb_concepts, data.a.shape[1]), dtype)
                self._report(0, True, np.zeros(1, dtype), 0.0)
                return self._restore(jnp.zeros_like(zt).T), self.D
            d = _dictionary(dense(data.a), zt, jnp.zeros((self.nb_concepts, data.a.shape[1]), dtype))
            l1 = self._l1(data.a.shape[1], data.scale)
            settings = Settings(self.solver)

            def advance(start: Any, stop_at: int) -> Descent[Factors]:
                return solve(start, data.a, l1, settings, self.tol, stop_at, history_length(limit))

            done = self._descend(advance, (zt, d), limit)
            self._d = done.state[1] * root
            zt = self._codes(data, self._limit(None, ENCODE_LIMIT), self.tol)
            self._report_descent(done, float(jnp.linalg.norm(data.a - product(zt.T, done.state[1]))))
            return self._restore(zt.T * root), self.D

    def _start(self, data: Data) -> Array:
        mean = jnp.mean(jnp.abs(dense(data.a)))
        return random_factor(self._key(), mean, (self.nb_concepts, data.a.shape[0]))

    def _codes_unit(self) -> float:
        return math.sqrt(self._scale)

    def _codes(self, data: Data, limit: int, tol: float) -> Array:
        penalties = Penalties(l1_z=self._l1(data.a.shape[1], self._scale))
        d = self._dictionary() / self._codes_unit()
        with progress.bar(self.verbose, limit, "encode", shows="gradient") as report:

            def advance(start: Any, stop_at: int) -> Descent[Array]:
                return compiled_search(start, data.a, d, penalties, None, Settings(self.solver), tol, stop_at)

            return in_view(advance, None, limit, report).state

    def init_random_d(self, A: Any, Z: Any = None, key: Array | None = None) -> Any:  # type: ignore[override]
        """Least-squares dictionary for the codes Z (n, k), by default random ones; of the kind of A."""
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            a = arrays.to_dense(A, dtype)
            z = arrays.to_dense(self.init_random_z(A, key) if Z is None else self._checked_codes(Z), dtype)
            d = _dictionary(a, z.T, jnp.zeros((self.nb_concepts, a.shape[1]), dtype))
            return self._restore(d, arrays.kind_of(A), A)
