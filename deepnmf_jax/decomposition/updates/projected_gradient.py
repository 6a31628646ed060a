"""Accelerated projected gradient on any simple set, and the projection on the simplex."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax


def accelerate(
    x: Array,
    gradient: Callable[[Array], Array],
    value: Callable[[Array], Array],
    project: Callable[[Array], Array],
    length: Array,
    steps: int,
) -> Array:
    """x after so many projected gradient steps with momentum (Nesterov 1983; restarts: O'Donoghue and Candes 2015).

    `length` is the step, at most 1 / (Lipschitz constant of the gradient). Momentum is dropped where it points uphill.
    Should the result be worse than the start after all, one plain step is returned instead, which cannot be.
    """

    def move(y: Array) -> Array:
        return project(y - length * gradient(y))

    def step(_: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, y, t = carry
        new = move(y)
        uphill = jnp.sum((y - new) * (new - x)) > 0
        t_new = jnp.where(uphill, 1, (1 + jnp.sqrt(1 + 4 * t * t)) / 2)
        momentum = jnp.where(uphill, 0, (t - 1) / t_new)
        return new, new + momentum * (new - x), t_new

    result = lax.fori_loop(0, steps, step, (x, x, jnp.ones((), x.dtype)))[0]
    return jnp.where(value(result) <= value(x), result, move(x))


def project_simplex(x: Array) -> Array:
    """Nearest point, row by row, with entries >= 0 and sum 1. x (..., k) -> (..., k).

    Sort and threshold (Held, Wolfe and Crowder 1974; Duchi et al. 2008): the point is max(x - theta, 0).
    """
    descending = jnp.sort(x, axis=-1)[..., ::-1]
    excess = jnp.cumsum(descending, axis=-1) - 1
    rank = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    support = jnp.sum(descending * rank > excess, axis=-1, keepdims=True)
    theta = jnp.take_along_axis(excess, support - 1, axis=-1) / support.astype(x.dtype)
    return jnp.maximum(x - theta, 0)
