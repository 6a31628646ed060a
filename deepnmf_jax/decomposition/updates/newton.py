"""Projected Newton steps on the codes of every sample, which land on the bound 0, and systems with their Hessian.

Bertsekas, Projected Newton methods for optimization problems with simple constraints, 1982. Multiplicative updates
approach 0 without reaching it, and slow down where atoms are alike; a few of these steps finish what they began. Shapes
as in `objective.Half`, of which it must be a `plain` one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.core.updates import ratio
from deepnmf_jax.decomposition.io.nonzeros import Blocks, Nonzeros
from deepnmf_jax.decomposition.updates.beta_divergence import (
    beta_curvature,
    beta_terms,
    divergence_change,
    entries_of_product,
    floor_of,
    log_change,
)
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.objective import Half

# Largest number of entries of the small matrices that are formed at once.
FORMED_AT_ONCE = 1 << 22
# Directions of a step; each leaves out the entries that the one before would make negative. The best of all is taken.
DIRECTIONS = 3
# Shorter lengths that are tried too.
SHORT = (0.3, 0.05, 0.002)
# Passes of iterative refinement, which take out what the ridge puts in.
REFINEMENTS = 3


def ridge_of(dtype: jnp.dtype) -> float:
    """Added to the diagonal of a Hessian whose diagonal is 1: rounding along flat directions stays below its root."""
    return float(jnp.finfo(dtype).eps) ** (2 / 3)


def at_bound(z: Array, slope: Array, diagonal: Array) -> Array:
    """Whether a Newton step of the entry alone ends at 0: there it is 0 in the solution, if the rest is solved."""
    return (slope > 0) & (z * diagonal <= slope)


def slope_of(
    z: Array, a: Any, f: Array, l1: Array | float, l2: Array | float, weights: Array | None, beta: float
) -> Array:
    """Gradient of the objective with respect to the codes Z (n, k), penalties included."""
    above, below = beta_terms(a, z, f, beta, weights)
    return below - above + l1 + l2 * z


def _hessians(f: Array, curvature: Array, l2: Array, beta: float) -> tuple[Array, Array]:
    """H (k, k) of one sample, and one without negative curvature, which only betas outside [1, 2] have."""
    ridge = l2 * jnp.eye(f.shape[0], dtype=f.dtype)
    plain = product(f * curvature, f.T) + ridge
    return plain, plain if 1 <= beta <= 2 else product(f * jnp.maximum(curvature, 0), f.T) + ridge


def _solver(hessian: Array, convex: Array, free: Array, damping: Array | float) -> Callable[[Array], Array]:
    """b -> (H + damping diag H)^-1 b on the free entries, 0 elsewhere; by `convex` where H is not positive there."""
    diagonal = jnp.diagonal(convex)
    scale = 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    both = free[:, None] & free[None, :]

    matrices = convex[None] if hessian is convex else jnp.stack([convex, hessian])
    scaled = jnp.where(both, scale[:, None] * matrices * scale, 0) + jnp.diag(jnp.where(free, damping, 1))
    roots = jnp.linalg.cholesky(scaled)
    root = jnp.where(jnp.all(jnp.isfinite(roots[-1])), roots[-1], roots[0])
    return lambda b: jnp.where(free, scale * jax.scipy.linalg.cho_solve((root, True), scale * b), 0)


def _per_sample(function: Callable, rows: tuple[Array, ...], f: Array) -> Array:
    """`function` of one row of each array, for all of them, by as many at once as memory has room for."""
    k, p = f.shape
    at_once = max(1, FORMED_AT_ONCE // (k * max(k, p)))
    if len(rows[0]) <= at_once:
        return jax.vmap(function)(*rows)
    return lax.map(lambda row: function(*row), rows, batch_size=at_once)


def newton_step(half: Half, beta: float) -> Callable[[Array], Array]:
    """X (k, m) -> X with one projected Newton step of every column, where that lowers the objective."""
    f, a, l1, l2, weights = half[:5]
    l1, l2 = jnp.asarray(l1, f.dtype), jnp.asarray(l2, f.dtype)
    known = () if weights is None else (weights,)

    def row(z: Array, a: Array, *weights: Array) -> Array:
        return _step(z, a, weights[0] if weights else None, f, l1, l2, beta)

    def of_rows(z: Array, a: Array, *weights: Array) -> Array:
        return _per_sample(row, (z, a, *weights), f)

    if isinstance(a, Nonzeros):
        sparse = a
        if a.dense:
            return lambda x: sparse.over_rows(lambda block, z: of_rows(z, block.written_out(f.shape[1])), x.T).T
        return lambda x: sparse.over_rows(partial(_sparse_step, columns=f.T, l1=l1, l2=l2), x.T).T
    return lambda x: of_rows(x.T, cast(Array, a), *known).T


def _step(z: Array, a: Array, weights: Array | None, f: Array, l1: Array, l2: Array, beta: float) -> Array:
    row_weights = None if weights is None else weights[None]
    w = product(z, f)
    slope = slope_of(z[None], a[None], f, l1, l2, row_weights, beta)[0]
    hessian, convex = _hessians(f, beta_curvature(a, w, beta, weights), l2, beta)
    steps = _steps(z, slope, hessian, convex)
    falls = jax.vmap(lambda s: divergence_change(a, w, product(s, f), beta, weights))(steps)
    return _best(z, steps, falls, l1, l2)


def _sparse_step(block: Blocks, z: Array, columns: Array, l1: Array, l2: Array) -> Array:
    """`_step` of the rows Z (r, k) of a block of a sparse A, for beta = 1. `columns` (q, k) is F^T."""
    a, total = block.values, jnp.sum(columns, axis=0)
    at, w = entries_of_product(block, z, columns)
    # Or XLA gathers them again in each of the products below.
    at = lax.optimization_barrier(at)
    slope = total - block.sums(jnp.einsum("sl,slk->sk", ratio(a, w), at, precision="highest")) + l1 + l2 * z
    # The curvature is a / w^2 at the entries, and 0 elsewhere.
    half = at * (jnp.sqrt(a) / jnp.maximum(w, floor_of(w.dtype, 1.0)))[..., None]
    hessian = block.sums(jnp.einsum("slk,slj->skj", half, half, precision="highest"))
    hessian = hessian + l2 * jnp.eye(len(total), dtype=z.dtype)
    steps = jax.vmap(lambda z, slope, h: _steps(z, slope, h, h))(z, slope, hessian)
    along = jnp.einsum("sck,slk->scl", block.spread(steps), at, precision="highest")
    # All that is not linear in the reconstruction is a log w, of the entries.
    of_a = jnp.where(a[:, None] > 0, a[:, None] * log_change(w[:, None], along, 1.0), 0)
    falls = product(steps, total) - block.sums(jnp.sum(of_a, axis=2))
    return jax.vmap(lambda z, steps, falls: _best(z, steps, falls, l1, l2))(z, steps, falls)


def _steps(z: Array, slope: Array, hessian: Array, convex: Array) -> Array:
    """Steps (c, k) that may be taken from the codes z (k,) of one sample."""
    diagonal = jnp.diagonal(convex)
    unit = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    # The step of each entry alone, relative to the largest code: far from the solution the Newton step is damped.
    alone = unit * (z - jnp.maximum(z - slope / unit**2, 0))
    largest = jnp.max(unit * z)
    rest = jnp.minimum(jnp.max(jnp.abs(alone)) / jnp.where(largest > 0, largest, 1), 1)
    damping = jnp.maximum(0.1 * rest**2, ridge_of(z.dtype))

    def direct(bound: Array, _: None) -> tuple[Array, Array]:
        to_zero = jnp.where(bound, -z, 0)
        solve = _solver(hessian, convex, ~bound, damping)
        change = to_zero - solve(slope + product(hessian, to_zero))
        return bound | (z + change <= 0), change

    _, changes = lax.scan(direct, at_bound(z, slope, diagonal), length=DIRECTIONS)
    # Up to where the first entry becomes 0 a near quadratic objective falls along the first of them;
    # the full steps land many entries at once.
    way = jnp.where((changes < 0) & (z > 0), z / jnp.where(changes < 0, -changes, 1), 1)
    first = jnp.minimum(jnp.min(way, axis=1, keepdims=True), 1)
    short = jnp.asarray(SHORT, z.dtype)[:, None] * changes[0]
    return jnp.maximum(z + jnp.concatenate([changes, first * changes, short]), 0) - z


def _best(z: Array, steps: Array, falls: Array, l1: Array, l2: Array) -> Array:
    """The codes z (k,) after the step that lowers the objective most, or as they are; `falls` of the divergence."""
    falls = falls + jnp.sum(steps * (l1 + l2 * (z + 0.5 * steps)), axis=1)
    falls = jnp.where(jnp.isnan(falls), jnp.inf, falls)
    best = jnp.argmin(falls)
    return jnp.where(falls[best] < 0, jnp.maximum(z + steps[best], 0), z)


def is_active(z: Array, half: Half, beta: float) -> Array:
    """Whether each entry of the codes Z (n, k) is positive in the solution near them."""
    f, a, l1, l2, weights = half[:5]
    curvature = beta_curvature(cast(Array, a), product(z, f), beta, weights)
    diagonal = product(jnp.maximum(curvature, 0), (f**2).T) + l2
    return (z > 0) & ~at_bound(z, slope_of(z, a, f, l1, l2, weights, beta), diagonal)


def solve_on(active: Array, b: Array, half: Half, z: Array, beta: float) -> Array:
    """Per sample, x (n, k) with H x = b (n, k) on the active entries and 0 elsewhere; H the Hessian at Z (n, k).

    Of the solutions of a singular system about the shortest one. Differentiable any number of times, not with respect
    to `active`.
    """
    f, a, _, l2, weights = half[:5]
    curvature = beta_curvature(cast(Array, a), product(z, f), beta, weights)

    def matvec(x: Array) -> Array:
        inside = jnp.where(active, x, 0)
        along = product(product(inside, f) * curvature, f.T) + l2 * inside
        return jnp.where(active, along, x)

    def one(on: Array, right: Array, curved: Array) -> Array:
        hessian, convex = _hessians(f, curved, jnp.asarray(l2, f.dtype), beta)
        solve = _solver(hessian, convex, on, ridge_of(f.dtype))
        first = solve(right)
        x = lax.fori_loop(0, REFINEMENTS, lambda _, x: x + solve(right - product(hessian, x)), first)
        # Refinement may run away only where H is not positive.
        return jnp.where(jnp.all(jnp.isfinite(x)), x, first)

    def solve(_: Callable, right: Array) -> Array:
        return _per_sample(one, (active, right, curvature), f)

    return lax.custom_linear_solve(matvec, jnp.where(active, b, 0), solve, symmetric=True)
