"""One sweep of each solver: first the codes, then with the new codes the dictionary.

Both halves are the same function: `improve` seeks X (k, m) in A ~ X^T F with F (k, q) fixed, for the codes X = Z^T,
F = D, for the dictionary X = D, F = Z^T and A transposed.
"""

from functools import partial
from typing import NamedTuple, cast

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.updates import quadratic, residual_updates
from deepnmf_jax.decomposition.updates.multiplicative import beta_step
from deepnmf_jax.decomposition.updates.objective import Penalties, has_many_atoms
from deepnmf_jax.decomposition.updates.quadratic import product

SOLVERS = ("hals", "mu", "anls", "pgd")


class Settings(NamedTuple):
    """How a step is made; static under jit.

    solver: one of `SOLVERS`. beta: 2 squared error; any other needs "mu". inner: repeats of the column loop of "hals"
    and of the update of "mu" for each product with A. block: rows of a block of "hals" (same iterates for any).
    gradient_steps: accelerated steps of "pgd" in each half. anls_sweeps, anls_tolerance: a half of "anls" ends when its
    projected gradient has fallen by that factor, or after so many sweeps.
    """

    solver: str = "hals"
    beta: float = 2.0
    inner: int = 1
    block: int = quadratic.BLOCK
    gradient_steps: int = 10
    anls_sweeps: int = 100
    anls_tolerance: float = 1e-3


def improve(
    x: Array,
    f: Array,
    a: Array | BCOO,
    l1: Array | float,
    l2: Array | float,
    settings: Settings,
    weights: Array | None = None,
) -> Array:
    """Better X (k, m) for A (m, q) ~ X^T F, F (k, q): the objective of this half does not rise.

    weights (m, q) or None. `l1`, `l2` are the penalties of X.
    """
    if settings.beta != 2 or (settings.solver == "mu" and weights is not None):
        xt = x.T
        for _ in range(settings.inner):
            xt = beta_step(cast(Array, a), xt, f, settings.beta, jnp.asarray(l1), jnp.asarray(l2), weights)
        return xt.T
    if weights is not None:
        return _improve_weighted(x, f, cast(Array, a), l1, l2, settings, weights)
    if settings.solver == "hals" and prefers_residual(x, f, a):
        sweep_once = partial(
            residual_updates.residual_sweep,
            f=f,
            a=cast(Array, a),
            l1=jnp.asarray(l1),
            l2=jnp.asarray(l2),
            block=settings.block,
        )
        return lax.fori_loop(0, settings.inner, lambda _, x: sweep_once(x), x)
    b, c = product(f, f.T), product(f, a.T)
    if settings.solver == "mu":
        for _ in range(settings.inner):
            x = quadratic.multiplicative_step(x, c, b, jnp.asarray(l1), jnp.asarray(l2))
        return x
    c, b = c - l1, b + l2 * jnp.eye(f.shape[0], dtype=f.dtype)
    if settings.solver == "pgd":
        return quadratic.accelerated_gradient(x, c, b, settings.gradient_steps)
    if settings.solver == "anls":
        return solve_half(x, c, b, settings)
    return lax.fori_loop(0, settings.inner, lambda _, x: quadratic.coordinate_sweep(x, c, b, settings.block), x)


def prefers_residual(x: Array, f: Array, a: Array | BCOO) -> bool:
    """Whether a sweep costs less with the residual than with Gram matrices: dense A and more atoms than features."""
    return not isinstance(a, BCOO) and has_many_atoms((x.shape[1], f.shape[1]), x.shape[0])


def solve_half(x: Array, c: Array, b: Array, settings: Settings) -> Array:
    """Coordinate sweeps until the projected gradient has fallen by `settings.anls_tolerance`; shapes of `quadratic`."""

    def size(x: Array) -> Array:
        return jnp.linalg.norm(quadratic.projected_gradient(x, c, b))

    goal = settings.anls_tolerance * size(x)

    def unsolved(carry: tuple[Array, Array]) -> Array:
        x, count = carry
        return (count < settings.anls_sweeps) & (size(x) > goal)

    def sweep(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        return quadratic.coordinate_sweep(carry[0], c, b, settings.block), carry[1] + 1

    return lax.while_loop(unsolved, sweep, (x, jnp.zeros((), jnp.int32)))[0]


def _improve_weighted(
    x: Array, f: Array, a: Array, l1: Array | float, l2: Array | float, settings: Settings, weights: Array
) -> Array:
    l1, l2 = jnp.asarray(l1), jnp.asarray(l2)
    if settings.solver == "pgd":
        return _weighted_gradient(x, f, a, l1, l2, settings.gradient_steps, weights)
    repeats = {"hals": settings.inner, "anls": settings.anls_sweeps // 10}[settings.solver]
    return lax.fori_loop(0, repeats, lambda _, x: residual_updates.weighted_sweep(x, f, a, weights, l1, l2), x)


def _weighted_gradient(x: Array, f: Array, a: Array, l1: Array, l2: Array, steps: int, weights: Array) -> Array:
    # Each sample has its own Gram matrix F diag(q_i) F^T, bounded by max q_i F F^T; so has the length of its step.
    bound = quadratic.largest_eigenvalue_bound(product(f, f.T)) * jnp.max(weights, axis=1) + l2
    length = quadratic.inverse(bound)

    def step(_: int, x: Array) -> Array:
        gradient = product(f, (weights * (product(x.T, f) - a)).T) + l1 + l2 * x
        return jnp.maximum(x - length * gradient, 0)

    observed = jnp.any(weights > 0, axis=1)
    return jnp.where(observed, lax.fori_loop(0, steps, step, x), 0)


def sweep(
    zt: Array,
    d: Array,
    a: Array | BCOO,
    penalties: Penalties,
    settings: Settings = Settings(),  # noqa: B008 - immutable
    weights: Array | None = None,
) -> tuple[Array, Array]:
    """One step of a solver: Z^T (k, n), D (k, p), A (n, p) -> the next Z^T, D. The objective does not rise."""
    zt = improve(zt, d, a, penalties.l1_z, penalties.l2_z, settings, weights)
    flipped = None if weights is None else weights.T
    return zt, improve(d, zt, a.T, penalties.l1_d, penalties.l2_d, settings, flipped)
