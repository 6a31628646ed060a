"""The fit of NMF as pure functions: a start, sweeps until the objective hardly falls, dead atoms replaced.

State comes in, state goes out; nothing is drawn after the start. They can be jitted and mapped over starts.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.updates import loop
from deepnmf_jax.decomposition.updates.loop import Descent, Factors, over_starts
from deepnmf_jax.decomposition.updates.objective import Penalties, objective, penalty, projected_gradient_norm
from deepnmf_jax.decomposition.updates.quadratic import product
from deepnmf_jax.decomposition.updates.solvers import Settings, sweep


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


def begin(
    zt: Array,
    d: Array,
    a: Array | BCOO,
    penalties: Penalties = Penalties(),  # noqa: B008 - immutable
    settings: Settings = Settings(),  # noqa: B008 - immutable
    weights: Array | None = None,
    length: int = 64,
) -> Descent[Factorization]:
    """Before the first sweep, from factors Z^T (k, n) and D (k, p); `length` entries of history."""
    value = objective(a, zt, d, penalties, settings.beta, weights)
    gradient = projected_gradient_norm(a, zt, d, penalties, settings.beta, weights)
    state = Factorization(zt, d, gradient, gradient, _without_effect(zt, d), jnp.zeros((), jnp.int32))
    return loop.begin(state, value, length, gradient == 0)


def _without_effect(zt: Array, d: Array) -> Array:
    return ~(jnp.any(zt != 0, axis=1) & jnp.any(d != 0, axis=1))


def advance(
    start: Descent[Factorization],
    a: Array | BCOO,
    penalties: Penalties,
    settings: Settings,
    tol: Array | float,
    stop_at: Array | int,
    weights: Array | None = None,
) -> Descent[Factorization]:
    """Sweeps from wherever `start` stands until `loop.relative_fall`, a projected gradient of 0, or `stop_at`."""
    revives = settings.beta == 2 and weights is None and settings.solver != "mu"

    def step(state: Factorization) -> Factorization:
        zt, d = sweep(state.zt, state.d, a, penalties, settings, weights)
        return state._replace(zt=zt, d=d)

    def mend(state: Factorization) -> Factorization:
        zt, d, revived, dead = state.zt, state.d, state.revived, _without_effect(state.zt, state.d)
        if revives:
            zt, d, more = _revive(zt, d, dead & state.dead, a, penalties)
            revived = revived + more
        gradient = projected_gradient_norm(a, zt, d, penalties, settings.beta, weights)
        return Factorization(zt, d, gradient, state.first_gradient, dead, revived)

    def value(state: Factorization) -> Array:
        return objective(a, state.zt, state.d, penalties, settings.beta, weights)

    def stop(before: Array, now: Array, state: Factorization) -> Array:
        return loop.relative_fall(before, now, tol) | (state.gradient == 0)

    return loop.descend(start, step, value, stop, stop_at, mend=mend)


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


@partial(jax.jit, static_argnames=("settings", "length"))
def fit(
    start: Factors | Descent[Factorization],
    a: Array | BCOO,
    penalties: Penalties,
    settings: Settings,
    weights: Array | None,
    tol: Array | float,
    stop_at: Array | int,
    length: int,
) -> Descent[Factorization]:
    """`stop_at` sweeps at most from every start at once: factors Z^T (r, k, n), D (r, k, p), or what an earlier call
    returned. Every field of the result has the first axis.

    `length` must be at least stop_at // 10 + 2 (`history_length`). The codes are those of the last sweep, one step of
    the dictionary behind; `codes.solve_codes` brings them up to date.
    """

    def one(start: Factors | Descent[Factorization]) -> Descent[Factorization]:
        if not isinstance(start, Descent):
            start = begin(*start, a, penalties, settings, weights, length)
        return advance(start, a, penalties, settings, tol, stop_at, weights)

    return over_starts(one, start)
