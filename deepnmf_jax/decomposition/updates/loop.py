"""The whole factorization as pure functions: init, advance, solve. They can be jitted and mapped over keys.

State comes in, state goes out; nothing is drawn after `init_state`. The sweeps run in one `lax.while_loop`, ten
between two looks at the objective.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.updates import starts as nndsvd
from deepnmf_jax.decomposition.updates.objective import Penalties, objective, penalty, projected_gradient_norm
from deepnmf_jax.decomposition.updates.quadratic import product
from deepnmf_jax.decomposition.updates.solvers import Settings, sweep

INITS = ("nndsvda", "nndsvd", "random")
CHECK_EVERY = 10


StateT = TypeVar("StateT")


class State(NamedTuple):
    """Where a factorization stands.

    zt (k, n) the codes transposed, d (k, p) the dictionary; iteration () sweeps made; history (h,) objective at the
    start and after every tenth sweep, NaN where not reached yet; checks () how many of them there are; gradient () and
    first_gradient () norm of the projected gradient now and at the start; change () fall of the objective between the
    last two checks, relative to the objective; converged (); dead (k,) atoms without effect at the last check; revived
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


compiled_start = jax.jit(init_factors, static_argnames=("k", "init"))


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

    Converged: over ten sweeps the objective fell by less than tol times itself, or the projected gradient is 0.
    tol = 0 never stops before the latter. Relative to the objective, not to ||A||^2: where the error is a tenth of A,
    the same tol would else stop a hundred times earlier. The size of the projected gradient says little here: it
    depends on the start, and multiplicative updates leave much of it at entries near 0.
    """

    def running(state: State) -> Array:
        return (state.iteration < stop_at) & ~state.converged

    def some_sweeps(state: State) -> State:
        count = jnp.minimum(CHECK_EVERY - state.iteration % CHECK_EVERY, stop_at - state.iteration)
        zt, d = lax.fori_loop(
            0, count, lambda _, f: sweep(f[0], f[1], a, penalties, settings, weights), (state.zt, state.d)
        )
        dead = _without_effect(zt, d)
        revived = state.revived
        if settings.beta == 2 and weights is None and settings.solver != "mu":
            zt, d, more = _revive(zt, d, dead & state.dead, a, penalties)
            revived = revived + more
        value = objective(a, zt, d, penalties, settings.beta, weights)
        gradient = projected_gradient_norm(a, zt, d, penalties, settings.beta, weights)
        before = state.history[state.checks - 1]
        change = (before - value) / jnp.where(before > 0, before, 1)
        return State(
            zt,
            d,
            state.iteration + count,
            state.history.at[state.checks].set(value),
            state.checks + 1,
            gradient,
            state.first_gradient,
            change,
            ((change < tol) & (jnp.asarray(tol) > 0)) | (gradient == 0),
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


def over_starts(function: Callable[..., StateT], starts: int) -> Callable[..., StateT]:
    """`function` of factors or a state with a leading axis of starts; one start is not mapped, so that its branches
    stay branches."""
    if starts > 1:
        return jax.vmap(function)
    return lambda *first: jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x[0], first)))


@partial(jax.jit, static_argnames=("settings", "length"))
def begin(
    zt: Array,
    d: Array,
    a: Array | BCOO,
    penalties: Penalties,
    settings: Settings,
    weights: Array | None,
    length: int,
) -> State:
    """`init_state` of every start, Z^T (r, k, n), D (r, k, p); every field of the state has the first axis."""

    def one(zt: Array, d: Array) -> State:
        return init_state(zt, d, a, penalties, settings, weights, length)

    return over_starts(one, zt.shape[0])(zt, d)


@partial(jax.jit, static_argnames=("settings",))
def go_on(
    states: State,
    a: Array | BCOO,
    penalties: Penalties,
    settings: Settings,
    tol: Array | float,
    stop_at: Array | int,
    weights: Array | None,
) -> State:
    """`advance` of every state of `begin`."""

    def one(state: State) -> State:
        return advance(state, a, penalties, settings, tol, stop_at, weights)

    return over_starts(one, states.zt.shape[0])(states)


def run(
    zt: Array,
    d: Array,
    a: Array | BCOO,
    penalties: Penalties,
    settings: Settings,
    max_iter: int,
    tol: float,
    weights: Array | None = None,
    length: int | None = None,
    report: Callable[[int, float], None] | None = None,
) -> State:
    """`solve` from every start, Z^T (r, k, n), D (r, k, p), at once; compiled, and in stretches if there is a report.

    `report` is called with the sweeps made and the smallest objective after every ten sweeps. The result is the same
    with and without it.
    """
    states = begin(zt, d, a, penalties, settings, weights, length or history_length(max_iter))
    if report is None:
        return go_on(states, a, penalties, settings, tol, max_iter, weights)
    done = 0
    while done < max_iter and not bool(jnp.all(states.converged)):
        done = min(done + CHECK_EVERY, max_iter)
        states = go_on(states, a, penalties, settings, tol, done, weights)
        report(done, float(jnp.nanmin(states.history[jnp.arange(zt.shape[0]), states.checks - 1])))
    return states
