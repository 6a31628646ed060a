"""The loop around `structure.sweep`: longer steps than the proved one, taken back where they fail; stopping."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.decomposition.dn2mfgl.graph import Graph
from deepnmf_jax.decomposition.dn2mfgl.objective import PROVED, Form, Strengths, evaluate, sweep
from deepnmf_jax.decomposition.updates.loop import CHECK_EVERY

# Exponents of the multiplicative step above the proved one grow by GROWTH up to LONGEST.
LONGEST, GROWTH = 2.0, 1.1


class State(NamedTuple):
    """Where a factorization stands.

    h: H_1 ... H_l, v (r_l, n), weights (m or 1, n or 1) of the residual at these factors, value () the objective,
    exponent () of the next step, sweeps () made, rejected () of them, history (t,) objective at the start and after
    every tenth sweep (NaN where not reached), converged ().
    """

    h: tuple[Array, ...]
    v: Array
    weights: Array
    value: Array
    exponent: Array
    sweeps: Array
    rejected: Array
    history: Array
    converged: Array


def init_state(
    h: tuple[Array, ...], v: Array, x: Array, graph: Graph, strengths: Strengths, form: Form, length: int = 64
) -> State:
    """State before the first sweep, with room for `length` entries of history."""
    value, weights = evaluate(h, v, x, graph, strengths, form)
    start = LONGEST / 2 if form.long_steps else PROVED
    return State(
        h, v, weights, value, jnp.full((), start, x.dtype), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32),
        jnp.full(length, jnp.nan, x.dtype).at[0].set(value), jnp.zeros((), bool),
    )  # fmt: skip


def step(state: State, x: Array, graph: Graph, strengths: Strengths, form: Form) -> State:
    """One sweep. With `long_steps` its exponent grows while J falls, and a sweep that raised J is taken back.

    Salakhutdinov and Roweis, Adaptive overrelaxed bound optimization methods, 2003: the next sweep then has exponent
    1/2, for which J cannot rise.
    """
    h, v = sweep(state.h, state.v, state.weights, x, graph, strengths, form, state.exponent)
    value, weights = evaluate(h, v, x, graph, strengths, form)
    sweeps = state.sweeps + 1
    if not form.long_steps:
        return state._replace(h=h, v=v, weights=weights, value=value, sweeps=sweeps)
    good = (value <= state.value) | (state.exponent <= PROVED)

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(good, new, old)

    return state._replace(
        h=tuple(kept(new, old) for new, old in zip(h, state.h, strict=True)),
        v=kept(v, state.v),
        weights=kept(weights, state.weights),
        value=kept(value, state.value),
        exponent=jnp.where(good, jnp.minimum(GROWTH * state.exponent, LONGEST), PROVED),
        sweeps=sweeps,
        rejected=state.rejected + ~good,
    )


def advance(
    state: State, x: Array, graph: Graph, strengths: Strengths, form: Form, tol: Array | float, stop_at: Array | int
) -> State:
    """Sweeps until J falls by less than tol |J| over ten of them (0: never), or until `stop_at` sweeps are made.

    A value below 0 (or none at all) ends them too: data and lam terms are at least 0, so that M then has a negative
    direction, along which J falls without end.
    """

    def running(state: State) -> Array:
        return (state.sweeps < stop_at) & ~state.converged

    def ten(state: State) -> State:
        count = jnp.minimum(CHECK_EVERY - state.sweeps % CHECK_EVERY, stop_at - state.sweeps)
        before = state.value
        state = lax.fori_loop(0, count, lambda _, s: step(s, x, graph, strengths, form), state)
        at = (state.sweeps + CHECK_EVERY - 1) // CHECK_EVERY
        fall = before - state.value
        return state._replace(
            history=state.history.at[at].set(state.value),
            converged=((fall <= tol * jnp.abs(state.value)) & (tol > 0)) | ~(state.value >= 0),
        )

    return lax.while_loop(running, ten, state)
