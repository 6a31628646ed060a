"""Accelerated projected gradient: on one half of a factorization, on any simple set, and onto the simplex."""

from collections.abc import Callable
from typing import cast

import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.decomposition.updates.linear_algebra import inverse, largest_eigenvalue_bound, product
from deepnmf_jax.decomposition.updates.objective import Half, Smoothness

# Accelerated steps of "pgd" in each half.
STEPS = 10


def projected_gradient_step(half: Half) -> Callable[[Array], Array]:
    """X -> X after `STEPS` projected gradient steps, accelerated where there are no element weights."""
    f, a, l1, l2, weights = half[:5]
    if weights is None:
        c, b = half.gram()
        return lambda x: accelerated_gradient(x, c, b, free=half.free, smooth=half.smooth)
    # Each sample has its own Gram matrix F diag(q_i) F^T, bounded by max q_i F F^T; so has the length of its step.
    bound = largest_eigenvalue_bound(product(f, f.T)) * jnp.max(weights, axis=1) + jnp.max(jnp.asarray(l2))
    # Of 1 1^T - I the largest eigenvalue is k - 1.
    bound = bound if half.ortho is None else bound + half.ortho * (len(f) - 1)
    bound = bound if half.smooth is None else bound + jnp.max(half.smooth.curvature())
    length = inverse(bound)

    def step(_: int, x: Array) -> Array:
        gradient = product(f, (weights * (product(x.T, f) - cast(Array, a))).T) + l1 + half.slope(x)
        return half.moved(x, jnp.maximum(x - length * gradient, 0))

    observed = jnp.any(weights > 0, axis=1)
    return lambda x: half.moved(x, jnp.where(observed, lax.fori_loop(0, STEPS, step, x), 0))


def nonnegative(x: Array) -> Array:
    """Nearest non-negative point."""
    return jnp.maximum(x, 0)


def accelerated_gradient(
    x: Array,
    c: Array,
    b: Array,
    steps: int = STEPS,
    project: Callable[[Array], Array] = nonnegative,
    free: Array | None = None,
    smooth: Smoothness | None = None,
) -> Array:
    """`accelerate` on 0.5 <X, B X> - <C, X> with step 1 / L; X, C (k, m), B (k, k).

    `project` is the projection on the set that X is to stay in. Entries that are not `free` (k, m) stay; with `smooth`
    0.5 <X, strength X L> is added.
    """

    def times(y: Array) -> Array:
        return product(b, y) if smooth is None else product(b, y) + smooth.slope(y)

    def gradient(y: Array) -> Array:
        return times(y) - c if free is None else jnp.where(free, times(y) - c, 0)

    bound = largest_eigenvalue_bound(b)
    return accelerate(
        x,
        gradient=gradient,
        value=lambda y: jnp.sum(y * (0.5 * times(y) - c)),
        project=project,
        length=inverse(bound if smooth is None else bound + jnp.max(smooth.curvature())),
        steps=steps,
    )


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
    # The point stays where all entries move alike. From the largest on, rounding is that of numbers up to 1.
    x = x - jnp.max(x, axis=-1, keepdims=True)
    descending = jnp.sort(x, axis=-1)[..., ::-1]
    excess = jnp.cumsum(descending, axis=-1) - 1
    rank = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    support = jnp.sum(descending * rank > excess, axis=-1, keepdims=True)
    theta = jnp.take_along_axis(excess, support - 1, axis=-1) / support.astype(x.dtype)
    return jnp.maximum(x - theta, 0)
