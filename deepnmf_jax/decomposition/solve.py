"""The whole factorization as pure functions: init, advance, solve. They can be jitted and mapped over keys.

State comes in, state goes out; nothing is drawn after `init_state`. The sweeps run in one `lax.while_loop`, ten
between two looks at the objective.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.core import nndsvd
from deepnmf_jax.core.quadratic import product
from deepnmf_jax.decomposition.codes import solve_codes
from deepnmf_jax.decomposition.objective import Penalties, objective, penalty, projected_gradient_norm, square_sum
from deepnmf_jax.decomposition.steps import Settings, sweep

INITS = ("nndsvda", "nndsvd", "random")
CHECK_EVERY = 10


class State(NamedTuple):
    """Where a factorization stands.

    zt (k, n) the codes transposed, d (k, p) the dictionary; iteration () sweeps made; history (h,) objective at the
    start and after every tenth sweep, NaN where not reached yet; checks () how many of them there are; gradient () and
    first_gradient () norm of the projected gradient now and at the start; change () fall of the objective over the last
    check, relative to half the square sum of A; converged (); dead (k,) atoms without effect at the last check; revived
    () how many have been replaced.
    """

    zt: Array
    d: Array
    iteration: Array
    history: Array
    checks: Array
    gradient: Array
    first_gradient: Array
    change: Array
    converged: Array
    dead: Array
    revived: Array


def history_length(max_iter: int) -> int:
    """Entries of the history for that many sweeps; in steps of 64, so that few limits share one compilation."""
    return 64 * (-(-(max_iter // CHECK_EVERY + 2) // 64))


def init_factors(key: Array, a: Array | BCOO, k: int, init: str = "nndsvda") -> tuple[Array, Array]:
    """Start Z^T (k, n), D (k, p) by one of `INITS`, scaled so that Z D is as close to A as one number can make it."""
    if init == "random":
        zt, d = nndsvd.random_start(key, a, k)
    else:
        zt, d = nndsvd.nndsvd_start(key, a, k, fill=init == "nndsvda")
    return zt * nndsvd.best_scale(a, zt, d), d


def init_state(
    zt: Array,
    d: Array,
    a: Array | BCOO,
    penalties: Penalties = Penalties(),  # noqa: B008 - immutable
    settings: Settings = Settings(),  # noqa: B008 - immutable
    weights: Array | None = None,
    length: int = 64,
) -> State:
    """State before the first sweep, from factors Z^T (k, n) and D (k, p); `length` entries of history."""
    value = objective(a, zt, d, penalties, settings.beta, weights)
    gradient = projected_gradient_norm(a, zt, d, penalties, settings.beta, weights)
    return State(
        zt,
        d,
        jnp.zeros((), jnp.int32),
        jnp.full(length, jnp.nan, d.dtype).at[0].set(value),
        jnp.ones((), jnp.int32),
        gradient,
        gradient,
        jnp.full((), jnp.inf, d.dtype),
        gradient == 0,
        _without_effect(zt, d),
        jnp.zeros((), jnp.int32),
    )


def _without_effect(zt: Array, d: Array) -> Array:
    return ~(jnp.any(zt != 0, axis=1) & jnp.any(d != 0, axis=1))


def advance(
    state: State,
    a: Array | BCOO,
    penalties: Penalties,
    settings: Settings,
    tol: Array | float,
    stop_at: Array | int,
    weights: Array | None = None,
) -> State:
    """Sweeps until convergence or until `stop_at` sweeps have been made, from wherever the state stands.

    Converged: over ten sweeps the objective fell by less than tol ||A||^2 / 2 (for other divergences than the squared
    error: tol times the objective of the start), and the projected gradient has fallen below
    tol times its value at the start, or below what rounding leaves of it. tol = 0 never stops.
    """
    unit = 0.5 * square_sum(a) if weights is None and settings.beta == 2 else state.history[0]
    unit = jnp.where(unit > 0, unit, 1)

    def running(state: State) -> Array:
        return (state.iteration < stop_at) & ~state.converged

    def some_sweeps(state: State) -> State:
        count = jnp.minimum(CHECK_EVERY - state.iteration % CHECK_EVERY, stop_at - state.iteration)
        zt, d = lax.fori_loop(
            0, count, lambda _, f: sweep(*f, a, penalties, settings, weights), (state.zt, state.d)
        )
        dead = _without_effect(zt, d)
        revived = state.revived
        if settings.beta == 2 and weights is None and settings.solver != "mu":
            zt, d, more = _revive(zt, d, dead & state.dead, a, penalties)
            revived = revived + more
        value = objective(a, zt, d, penalties, settings.beta, weights)
        gradient = projected_gradient_norm(a, zt, d, penalties, settings.beta, weights)
        change = (state.history[state.checks - 1] - value) / unit
        settled = (change < tol) & (gradient <= tol * state.first_gradient)
        return State(
            zt,
            d,
            state.iteration + count,
            state.history.at[state.checks].set(value),
            state.checks + 1,
            gradient,
            state.first_gradient,
            change,
            (settled & (jnp.asarray(tol) > 0)) | (gradient == 0),
            dead,
            revived,
        )

    return lax.while_loop(running, some_sweeps, state)


def _revive(zt: Array, d: Array, dead: Array, a: Array | BCOO, penalties: Penalties) -> tuple[Array, Array, Array]:
    """Give each dead atom the positive part of the worst reconstructed sample, as long as the objective falls."""

    def wanted(carry: tuple[Array, Array, Array, Array]) -> Array:
        return jnp.any(carry[2])

    def replace(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        zt, d, dead, count = carry
        j = jnp.argmax(dead)
        zt_rest, d_rest = zt.at[j].set(0), d.at[j].set(0)
        c, b = product(d_rest, a.T), product(d_rest, d_rest.T)
        errors = jnp.sum(zt_rest * (product(b, zt_rest) - 2 * c), axis=0) + _row_squares(a)
        worst = jax.nn.one_hot(jnp.argmax(errors), zt.shape[1], dtype=d.dtype)[None]
        atom = jnp.maximum(product(worst, a)[0] - product(product(worst, zt_rest.T), d_rest)[0], 0)
        curvature = jnp.sum(atom**2) + penalties.l2_z
        slope = product(atom[None], a.T)[0] - product(product(atom[None], d_rest.T), zt_rest)[0] - penalties.l1_z
        codes = jnp.maximum(slope, 0) / jnp.where(curvature > 0, curvature, 1)
        gain = 0.5 * curvature * jnp.sum(codes**2)
        cost = penalty(jnp.zeros_like(codes), atom, penalties) - penalty(zt[j], d[j], penalties)
        better = gain > cost
        zt = jnp.where(better, zt_rest.at[j].set(codes), zt)
        d = jnp.where(better, d_rest.at[j].set(atom), d)
        # The next candidate would be no better than this one.
        return zt, d, jnp.where(better, dead.at[j].set(False), jnp.zeros_like(dead)), count + better

    zt, d, _, count = lax.while_loop(wanted, replace, (zt, d, dead, jnp.zeros((), jnp.int32)))
    return zt, d, count


def _row_squares(a: Array | BCOO) -> Array:
    if isinstance(a, BCOO):
        squares = BCOO((a.data**2, a.indices), shape=a.shape)
        return product(squares, jnp.ones((a.shape[1], 1), a.dtype))[:, 0]
    return jnp.sum(a**2, axis=1)


@partial(jax.jit, static_argnames=("settings", "length"))
def solve(
    zt: Array,
    d: Array,
    a: Array | BCOO,
    penalties: Penalties = Penalties(),  # noqa: B008 - immutable
    settings: Settings = Settings(),  # noqa: B008 - immutable
    max_iter: Array | int = 500,
    tol: Array | float = 1e-4,
    weights: Array | None = None,
    length: int = 64,
) -> State:
    """Factorization of A (n, p) from the start Z^T (k, n), D (k, p): the state after the last sweep.

    `length` must be at least max_iter // 10 + 2 (`history_length`). The codes are those of the last sweep, one
    step of the dictionary behind; `codes.solve_codes` brings them up to date.
    """
    state = init_state(zt, d, a, penalties, settings, weights, length)
    return advance(state, a, penalties, settings, tol, max_iter, weights)


@partial(jax.jit, static_argnames=("k", "init", "settings", "length"))
def solve_from_keys(
    keys: Array,
    a: Array | BCOO,
    k: int,
    init: str = "random",
    penalties: Penalties = Penalties(),  # noqa: B008 - immutable
    settings: Settings = Settings(),  # noqa: B008 - immutable
    max_iter: Array | int = 500,
    tol: Array | float = 1e-4,
    weights: Array | None = None,
    length: int = 64,
) -> State:
    """`solve` from one start a key, all at once under `vmap`; every field of the state gains a leading axis."""

    def one(key: Array) -> State:
        return solve(*init_factors(key, a, k, init), a, penalties, settings, max_iter, tol, weights, length)

    return jax.vmap(one)(keys)


solve_codes_jitted = jax.jit(solve_codes, static_argnames=("settings",))
