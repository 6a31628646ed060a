"""The fit of NMF as pure functions: a start, sweeps until the objective hardly falls, dead atoms replaced.

State comes in, state goes out; nothing is drawn after the start. They can be jitted and mapped over starts.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.updates import loop
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.loop import Descent, over_starts
from deepnmf_jax.decomposition.updates.objective import (
    Penalties,
    Target,
    divergence,
    objective,
    penalty,
    projected_gradient_norm,
)
from deepnmf_jax.decomposition.updates.solvers import SOLVERS, SolverSettings, sweep

Pair = tuple[Array, Array]


class Factorization(NamedTuple):
    """What the sweeps of NMF change, and what is known of it from the last look.

    zt (k, n) the codes transposed, d (k, p) the dictionary; gradient () and first_gradient () norm of the projected
    gradient then and at the start; dead (k,) atoms without effect; revived () how many have been replaced.
    """

    zt: Array
    d: Array
    gradient: Array
    first_gradient: Array
    dead: Array
    revived: Array


class Report(NamedTuple):
    """How a fit ended, for people: reached, iterations, last change of the objective (relative to it, over
    ten sweeps), projected gradient relative to the start, atoms without effect, atoms replaced."""

    converged: bool
    iterations: int
    change: float
    gradient: float
    n_dead: int
    n_revived: int


def without_effect(zt: Array, d: Array) -> Array:
    """Whether each atom (k,) has no codes or is 0 itself; the smallest normal number, as "mu" leaves it, is 0 too."""
    none = jnp.finfo(d.dtype).tiny
    return ~(jnp.any(zt > none, axis=1) & jnp.any(d > none, axis=1))


@partial(jax.jit, static_argnames=("settings", "length"))
def fit(
    start: Pair | Descent[Factorization],
    stop_at: Array | int,
    target: Target,
    settings: SolverSettings,
    tol: Array | float,
    length: int,
) -> Descent[Factorization]:
    """Sweeps from every start at once, Z^T (r, k, n) and D (r, k, p), or from where an earlier call ended.

    They end by `loop.relative_fall`, at a projected gradient of 0, or when `stop_at` of them are made. Every field of
    the result has the first axis. `length` of the history: at least stop_at // 10 + 2 (`history_length`). The codes are
    those of the last sweep, one step of the dictionary behind; `codes.solve_codes` brings them up to date.
    """
    beta = settings.beta
    revives = beta == 2 and target.weights is None and not SOLVERS[settings.solver].keeps_zeros

    def step(state: Factorization) -> Factorization:
        zt, d = sweep(state.zt, state.d, target, settings)
        return state._replace(zt=zt, d=d)

    def mend(state: Factorization) -> Factorization:
        zt, d, revived, dead = state.zt, state.d, state.revived, without_effect(state.zt, state.d)
        if revives:
            zt, d, more = _revive(zt, d, dead & state.dead, target.a, target.penalties)
            revived = revived + more
        gradient = projected_gradient_norm(zt, d, target, beta)
        return Factorization(zt, d, gradient, state.first_gradient, dead, revived)

    def value(state: Factorization) -> Array:
        return objective(state.zt, state.d, target, beta)

    def stop(before: Array, now: Array, state: Factorization) -> Array:
        return loop.relative_fall(before, now, tol) | (state.gradient == 0)

    def begin(zt: Array, d: Array) -> Factorization:
        gradient = projected_gradient_norm(zt, d, target, beta)
        return Factorization(zt, d, gradient, gradient, without_effect(zt, d), jnp.zeros((), jnp.int32))

    def one(start: Pair | Descent[Factorization]) -> Descent[Factorization]:
        first = start if isinstance(start, Descent) else begin(*start)
        return loop.descend(first, stop_at, step, value, stop, length=length, mend=mend)

    return over_starts(one, start)


def _revive(zt: Array, d: Array, dead: Array, a: Array | BCOO, penalties: Penalties) -> tuple[Array, Array, Array]:
    """Give each dead atom the positive part of the worst reconstructed sample, as long as the objective falls."""

    def wanted(carry: tuple[Array, Array, Array, Array]) -> Array:
        return jnp.any(carry[2])

    def replace(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        zt, d, dead, count = carry
        j = jnp.argmax(dead)
        # A dead atom adds nothing to Z D: the residual is the same with and without it.
        row, along = _worst_row(a, zt, d)
        atom = jnp.maximum(row, 0)
        curvature = jnp.sum(atom**2) + penalties.l2_z
        codes = jnp.maximum(along(atom) - penalties.l1_z, 0) / jnp.where(curvature > 0, curvature, 1)
        gain = 0.5 * curvature * jnp.sum(codes**2)
        cost = penalty(jnp.zeros_like(codes), atom, penalties) - penalty(zt[j], d[j], penalties)
        better = gain > cost
        zt = jnp.where(better, zt.at[j].set(codes), zt)
        d = jnp.where(better, d.at[j].set(atom), d)
        # The next candidate would be no better than this one.
        return zt, d, jnp.where(better, dead.at[j].set(False), jnp.zeros_like(dead)), count + better

    zt, d, _, count = lax.while_loop(wanted, replace, (zt, d, dead, jnp.zeros((), jnp.int32)))
    return zt, d, count


def _worst_row(a: Array | BCOO, zt: Array, d: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Row (p,) of the residual A - Z D with the largest norm, and the product of the residual with a vector (p,)."""
    if not isinstance(a, BCOO):
        rest = a - product(zt.T, d)
        worst = jax.nn.one_hot(jnp.argmax(jnp.sum(rest**2, axis=1)), a.shape[0], dtype=d.dtype)
        return product(worst, rest), lambda vector: product(rest, vector)
    squares = product(BCOO((a.data**2, a.indices), shape=a.shape), jnp.ones((a.shape[1], 1), d.dtype))[:, 0]
    errors = squares + jnp.sum(zt * (product(product(d, d.T), zt) - 2 * product(d, a.T)), axis=0)
    worst = jax.nn.one_hot(jnp.argmax(errors), a.shape[0], dtype=d.dtype)[None]
    row = product(worst, a)[0] - product(product(worst, zt.T), d)[0]
    return row, lambda vector: product(vector[None], a.T)[0] - product(product(vector[None], d.T), zt)[0]


# The arithmetic around a fit is compiled in a few pieces: one operation after the other, each would be a program of
# its own for every new shape, and to compile them takes longer than the fit of a small matrix.
@jax.jit
def best_of(
    done: Descent[Factorization], penalties: Penalties, root: Array | float
) -> tuple[Descent[Factorization], Array, Array]:
    """Of the fits from all starts: the one with the least objective, its dictionary times `root`, all divergences."""
    best = jnp.argmin(jnp.where(jnp.isnan(done.value), jnp.inf, done.value))
    divergences = done.value - jax.vmap(penalty, (0, 0, None))(done.state.zt, done.state.d, penalties)
    done = jax.tree.map(lambda x: x[best], done)
    return done, done.state.d * root, divergences


@partial(jax.jit, static_argnames=("beta",))
def judge(zt: Array, d: Array, target: Target, root: Array | float, beta: float) -> tuple[Array, Array, Array]:
    """Codes Z (n, k) times `root` from Z^T, their divergence from A, and how many atoms are without effect."""
    return (zt * root).T, divergence(zt, d, target, beta), jnp.sum(without_effect(zt, d))


def report_of(done: Descent[Factorization], history: np.ndarray, n_dead: int) -> Report:
    """The report of one fit whose objectives were `history`, with so many atoms without effect at the end."""
    change = (history[-2] - history[-1]) / (history[-2] if history[-2] > 0 else 1) if len(history) > 1 else np.inf
    gradient = float(done.state.gradient) / (float(done.state.first_gradient) or 1.0)
    return Report(bool(done.converged), int(done.sweeps), float(change), gradient, n_dead, int(done.state.revived))
