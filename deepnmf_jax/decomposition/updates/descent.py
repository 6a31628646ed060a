"""The loop of SemiNMF, ConvexNMF and ArchetypalAnalysis: steps until the objective hardly falls."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.decomposition.updates.loop import CHECK_EVERY

# These have no projected gradient to look at; the fall of the objective must be this much smaller than the tolerance.
SHARPER = 1e-2

Factors = tuple[Array, Array]


class Descent(NamedTuple):
    """Factors at the end, steps made, objectives at the start and after every tenth step (NaN after the last one),
    how many of them there are, and whether the tolerance was reached."""

    factors: Factors
    iterations: Array
    history: Array
    checks: Array
    converged: Array


def descend(
    factors: Factors,
    step: Callable[[Factors], Factors],
    value: Callable[[Factors], Array],
    unit: Array,
    max_iter: Array | int,
    tol: Array | float,
    length: int,
) -> Descent:
    """`step` again and again until the objective falls by less than 0.01 tol `unit` over ten steps, or max_iter.

    `length` is the size of the history, at least max_iter // 10 + 2. tol = 0 never stops.
    """
    first = value(factors)
    history = jnp.full(length, jnp.nan, first.dtype).at[0].set(first)

    def running(state: Descent) -> Array:
        return (state.iterations < max_iter) & ~state.converged

    def some_steps(state: Descent) -> Descent:
        count = jnp.minimum(CHECK_EVERY, max_iter - state.iterations)
        factors = lax.fori_loop(0, count, lambda _, f: step(f), state.factors)
        now = value(factors)
        fall = state.history[state.checks - 1] - now
        converged = (jnp.asarray(tol) > 0) & (fall < SHARPER * tol * unit)
        history = state.history.at[state.checks].set(now)
        return Descent(factors, state.iterations + count, history, state.checks + 1, converged)

    start = Descent(factors, jnp.zeros((), jnp.int32), history, jnp.ones((), jnp.int32), unit == 0)
    return lax.while_loop(running, some_steps, start)
