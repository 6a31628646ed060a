"""ConvexNMF: A ~ Z W A, atoms D = W A made of samples (Ding, Li and Jordan 2010)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.core.checks import check_choice, check_flag
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, FIT_LIMIT
from deepnmf_jax.decomposition.io import arrays
from deepnmf_jax.decomposition.io.checked import Data, dense
from deepnmf_jax.decomposition.io.saving import Kind
from deepnmf_jax.decomposition.io.units import divided, multiplied
from deepnmf_jax.decomposition.signed_estimator import SignedEstimator
from deepnmf_jax.decomposition.updates.derivative import Problem, follow, follow_on_simplex
from deepnmf_jax.decomposition.updates.linear_algebra import inverse, largest_eigenvalue_bound, product
from deepnmf_jax.decomposition.updates.loop import Descent, descend, history_length, small_fall
from deepnmf_jax.decomposition.updates.multiplicative import square_root_step
from deepnmf_jax.decomposition.updates.objective import square_sum
from deepnmf_jax.decomposition.updates.projected_gradient import (
    accelerate,
    accelerated_gradient,
    nonnegative,
    project_simplex,
)
from deepnmf_jax.decomposition.updates.solvers import SolverSettings

SOLVERS = ("pgd", "mu")
INNER_STEPS = 10
CODES_STEPS = 5
# K+ and K- are n x n; above this many samples of mixed sign "mu" is refused.
LARGEST_KERNEL = 10_000


Pair = tuple[Array, Array]


class Constraints(NamedTuple):
    """Static under jit: whether the rows of Z and of W lie on the simplex (else they are only >= 0); the solver."""

    simplex_z: bool = False
    simplex_w: bool = False
    solver: str = "pgd"
    signed: bool = True


def _columns_on_simplex(x: Array) -> Array:
    return project_simplex(x.T).T


def codes_step(zt: Array, d: Array, a: Array, l1: Array | float, simplex: bool, steps: int = INNER_STEPS) -> Array:
    """Accelerated projected gradient on Z^T (k, n), step 1 / L of D D^T; the objective does not rise."""
    c, b = product(d, a.T) - l1, product(d, d.T)
    return accelerated_gradient(zt, c, b, steps, _columns_on_simplex if simplex else nonnegative)


def weights_step(zt: Array, w: Array, a: Array, largest: Array, simplex: bool) -> Array:
    """Accelerated projected gradient on W (k, n): products with A alone, no n x n matrix. `largest` bounds A A^T."""
    n, za = product(zt, zt.T), product(zt, a)

    def gradient(w: Array) -> Array:
        return product(product(n, product(w, a)) - za, a.T)

    def value(w: Array) -> Array:
        d = product(w, a)
        return jnp.sum(d * (0.5 * product(n, d) - za))

    length = inverse(largest_eigenvalue_bound(n) * largest)
    return accelerate(w, gradient, value, project_simplex if simplex else nonnegative, length, INNER_STEPS)


def kernel_parts(a: Array, right: Array, signed: bool) -> tuple[Array, Array]:
    """K+ X and K- X for K = A A^T and X (n, k). For A >= 0 K- = 0 and K is never formed."""
    if not signed:
        return product(a, product(a.T, right)), jnp.zeros_like(right)
    kernel = product(a, a.T)
    return product(jnp.maximum(kernel, 0), right), product(jnp.maximum(-kernel, 0), right)


def multiplicative_codes(zt: Array, w: Array, a: Array, l1: Array | float, signed: bool) -> Array:
    """Z <- Z sqrt((K+ W^T + Z W K- W^T) / (K- W^T + Z W K+ W^T)) (Ding et al., eq. 15), on Z^T (k, n)."""
    plus, minus = kernel_parts(a, w.T, signed)
    above = plus.T + product(product(w, minus).T, zt)
    return square_root_step(zt, above, minus.T + product(product(w, plus).T, zt) + l1)


def multiplicative_weights(zt: Array, w: Array, a: Array, signed: bool) -> Array:
    """W <- W sqrt((Z^T K+ + Z^T Z W K-) / (Z^T K- + Z^T Z W K+)) (Ding et al., eq. 14), W (k, n)."""
    n = product(zt, zt.T)
    z_plus, z_minus = (part.T for part in kernel_parts(a, zt.T, signed))
    w_plus, w_minus = (part.T for part in kernel_parts(a, w.T, signed))
    return square_root_step(w, z_plus + product(n, w_minus), z_minus + product(n, w_plus))


def _objective(a: Array, zt: Array, d: Array, l1: Array | float) -> Array:
    return 0.5 * jnp.sum((a - product(zt.T, d)) ** 2) + l1 * jnp.sum(zt)


@partial(jax.jit, static_argnames=("constraints", "length"))
def solve(
    start: Pair | Descent[Pair],
    stop_at: int,
    a: Array,
    l1: Array | float,
    constraints: Constraints,
    tol: float,
    length: int,
) -> Descent[Pair]:
    """A (n, p) ~ Z W A from Z^T and W, both (k, n): codes, then W, until the objective settles."""
    gram = product(a.T, a) if a.shape[1] <= a.shape[0] else product(a, a.T)
    largest = largest_eigenvalue_bound(gram)
    multiplicative = constraints.solver == "mu"

    def step(factors: Pair) -> Pair:
        zt, w = factors
        if multiplicative and not constraints.simplex_z:
            zt = multiplicative_codes(zt, w, a, l1, constraints.signed)
        else:
            zt = codes_step(zt, product(w, a), a, l1, constraints.simplex_z)
        if multiplicative and not constraints.simplex_w:
            return zt, multiplicative_weights(zt, w, a, constraints.signed)
        return zt, weights_step(zt, w, a, largest, constraints.simplex_w)

    def value(factors: Pair) -> Array:
        return _objective(a, factors[0], product(factors[1], a), l1)

    return descend(start, stop_at, step, value, small_fall(tol, 0.5 * square_sum(a)), length=length)


@partial(jax.jit, static_argnames=("simplex", "length"))
def solve_codes(
    a: Array, d: Array, l1: Array | float, simplex: bool, tol: float, stop_at: int, length: int
) -> Descent[Array]:
    """Codes Z^T (k, n) of A (n, p) for the fixed atoms D (k, p), from a fixed start."""
    k = d.shape[0]
    start = jnp.full((k, a.shape[0]), 1 / k if simplex else 0, d.dtype)

    def step(zt: Array) -> Array:
        return codes_step(zt, d, a, l1, simplex, CODES_STEPS)

    def value(zt: Array) -> Array:
        return _objective(a, zt, d, l1)

    # The objective is quadratic in the codes, so that theirs are exact to the root of the tolerance: much sharper.
    return descend(start, stop_at, step, value, small_fall(tol**2, 0.5 * square_sum(a)), length=length)


@partial(jax.jit, static_argnames=("k",))
def furthest_sum(key: Array, a: Array, k: int) -> Array:
    """Indices (k,) of samples far from one another, greedily (Morup and Hansen 2012); k may not exceed n."""
    squares = jnp.sum(a**2, axis=1)

    def distances(i: Array) -> Array:
        return jnp.sqrt(jnp.maximum(squares + squares[i] - 2 * product(a, a[i][:, None])[:, 0], 0))

    def choose(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        # One pass more than atoms: the first, random one is given back for the last.
        chosen, taken, total = carry
        slot = j % k
        old = chosen[slot]
        again = j >= k
        total = total - jnp.where(again, distances(old), 0)
        taken = taken.at[old].set(jnp.where(again, False, taken[old]))
        new = jnp.argmax(jnp.where(taken, -jnp.inf, total))
        return chosen.at[slot].set(new), taken.at[new].set(True), total + distances(new)

    first = jax.random.randint(key, (), 0, a.shape[0])
    start = jnp.zeros(k, first.dtype).at[0].set(first)
    taken = jnp.zeros(a.shape[0], bool).at[first].set(True)
    return jax.lax.fori_loop(1, k + 1, choose, (start, taken, distances(first)))[0]


class ConvexNMF(SignedEstimator):
    """A ~ Z D with D = W A: codes Z (n, k) >= 0, weights W (k, n) >= 0 of the samples, A of any sign.

    Args:
        nb_concepts: k; `n_components` is another name for it.
        device: as in `NMF`.
        tol: a fit ends when the objective falls by less than 0.01 tol ||A||^2 / 2 over ten sweeps.
        strict_convex: rows of W sum to 1 (by projection on the simplex): atoms are means of samples.
        solver: "pgd" (accelerated projected gradient, products with A alone) or "mu" (Ding et al.; for data of mixed
            sign it forms n x n matrices, up to 10,000 samples).
        verbose: a progress bar in `fit`.
        l1_penalty: weight of the mean of |Z| against the mean squared error, as in overcomplete.
        n_components: k.
        max_iter: sweeps of `fit` and `encode`; None: 500 and 300.
        random_state: seed of the start.
        dtype: as in `NMF`.

    Attributes:
        W: weights of the samples (k, n); None before a fit.
        Z: codes of the fit (n, k); None before a fit.

    Raises:
        ValueError: an argument outside what it allows.
    """

    solvers: tuple[str, ...] = SOLVERS
    saved_arrays: Mapping[str, Kind] = {"_d": Kind("kp"), "_w": Kind("kn", nonnegative=True)}

    def __init__(
        self,
        nb_concepts: int | None = None,
        device: Any = None,
        tol: float = 1e-4,
        strict_convex: bool = False,
        solver: str = "pgd",
        verbose: bool = False,
        l1_penalty: float = 0.0,
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
        self.strict_convex = check_flag("strict_convex", strict_convex)

    @property
    def _constraints(self) -> Constraints:
        # Of the arguments as they are now: they may be set to others after the constructor has checked them.
        solver = check_choice("solver", self.solver, self.solvers)
        return Constraints(False, check_flag("strict_convex", self.strict_convex), solver)

    def _forget(self) -> None:
        super()._forget()
        self._w: Array | None = None
        self._zt: Array | None = None

    @property
    def W(self) -> Any:
        """Weights of the samples (k, n), of the kind of array given to `fit`; None before a fit."""
        return None if self._w is None else self._restore(self._w)

    @property
    def Z(self) -> Any:
        """Codes of the fit (n, k), of the kind of array given to `fit`; None before a fit or after `load`."""
        return None if self._zt is None else self._restore(self._zt.T)

    def fit(self, A: Any, max_iter: int | None = None) -> tuple[Any, Any]:
        """Z (n, k) and D = W A (k, p) for A (n, p), of the kind of A. ValueError for what is no such matrix."""
        limit = self._limit(max_iter, FIT_LIMIT)
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(A, dtype)
            a = dense(data.a)
            signed = bool(jnp.any(a < 0))
            constraints, length = self._constraints._replace(signed=signed), history_length(limit)
            if constraints.solver == "mu" and signed and a.shape[0] > LARGEST_KERNEL:
                raise ValueError(f"solver 'mu' forms {a.shape[0]} x {a.shape[0]} matrices here; use solver='pgd'")
            l1 = self._l1(a.shape[1], data.scale, data.scale)
            self._begin(A, data)
            compiled = partial(solve, a=a, l1=l1, constraints=constraints, tol=self.tol, length=length)
            done = self._descend(compiled, self._start(a), limit)
            self._w = done.state[1]
            atoms = product(self._w, a)
            self._d = multiplied(atoms, data.scale)
            self._zt = self._codes(data, self._limit(None, ENCODE_LIMIT), self.tol)
            self._report_descent(done, float(jnp.linalg.norm(a - product(self._zt.T, atoms))))
            return self.Z, self.D

    def _start(self, a: Array) -> Pair:
        """W puts most weight on samples far apart; Z are codes for them, lifted off 0, which "mu" cannot leave."""
        n, k = a.shape[0], self.nb_concepts
        chosen = furthest_sum(self._key(), a, min(k, n))
        if k > n:
            chosen = jnp.concatenate([chosen, jax.random.randint(self._key(), (k - n,), 0, n)])
        w = jax.nn.one_hot(chosen, n, dtype=a.dtype)
        if not self._constraints.simplex_z:
            w = 0.8 * w + 0.2 / n
        codes = solve_codes(a, product(w, a), 0.0, self._constraints.simplex_z, 0.0, 20, 64).state
        return (codes if self._constraints.simplex_z else codes + 0.2 / k), w

    def _dictionary_unit(self, scale: float | None = None) -> float:
        # W and Z are numbers; the dictionary W A has the unit of the data.
        return self._scale if scale is None else scale

    def _read_near(self, a: Any, dtype: np.dtype, **more: Any) -> Data:
        data = super()._read_near(a, dtype, **more)
        if not self._constraints.simplex_z or data.scale == self._scale:
            return data
        # Codes that sum to 1 cannot follow the data to another unit.
        data = self._read(a, dtype, scale=self._scale, **more)
        if data.unit > self._scale:
            raise ValueError(
                f"A has entries of the size of {data.unit:.0e}, the data of the fit had {self._scale:.0e}; mixtures of "
                "its archetypes are nowhere near: bring A to the unit of the fit"
            )
        return data

    def _codes(self, data: Data, limit: int, tol: float) -> Array:
        d, simplex = cast(Array, divided(self._dictionary(), self._scale)), self._constraints.simplex_z
        l1 = self._l1(d.shape[1], data.scale)
        return solve_codes(dense(data.a), d, l1, simplex, tol, limit, history_length(limit)).state

    def _differentiable_codes(self, a: Array, d: Array, limit: int, tol: float) -> Array:
        d, l1, simplex = d / self._scale, self._l1(d.shape[1], self._scale), self._constraints.simplex_z
        z = solve_codes(lax.stop_gradient(a), d, l1, simplex, tol, limit, history_length(limit)).state.T
        return follow_on_simplex(z, a, d) if simplex else follow(z, Problem(a, d, l1), SolverSettings("pgd"))

    def init_random_w(self, A: Any, key: Array | None = None) -> Any:
        """Random weights of the samples (k, n), of the kind of A; rows on the simplex where the fit's are."""
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            a = arrays.to_dense(A, dtype)
            w = jnp.abs(jax.random.normal(self._key() if key is None else key, (self.nb_concepts, a.shape[0]), dtype))
            w = w / jnp.sum(w, axis=1, keepdims=True)
            return self._restore(w, arrays.kind_of(A), A)
