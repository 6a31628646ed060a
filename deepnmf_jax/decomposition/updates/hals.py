"""HALS: exact coordinate descent, one atom after the other (Cichocki and Phan 2009, algorithm 2).

One half of A ~ X^T F as in `objective.Half`: X (k, m) is sought, F (k, q) fixed. Minimised is 0.5 <X, B X> - <C, X>
over X >= 0, every column for itself, with the Gram matrices B = F F^T + l2 (k, k) and C = F A^T - l1 (k, m); rows of X
are contiguous, which is what a sweep over them wants. With element weights, and for more atoms than features, the
residual A - X^T F is kept instead.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition.updates.linear_algebra import inverse, product
from deepnmf_jax.decomposition.updates.loop import descend
from deepnmf_jax.decomposition.updates.objective import Half, Smoothness, gradient_of

# Rows solved one after the other inside one block; the rest of a sweep is matrix products. The iterates do not depend
# on it.
BLOCK = 32
# "anls" solves a half until its projected gradient has fallen by this factor, or for so many sweeps.
ANLS_TOLERANCE, ANLS_SWEEPS = 1e-3, 100
WEIGHTED_ANLS_SWEEPS = 10


def hals_step(half: Half, inner: int = 1) -> Callable[[Array], Array]:
    """X -> X after `inner` sweeps over its rows; what does not depend on X is computed once."""
    if half.weights is not None:
        once = partial(weighted_sweep, half=half)
    elif half.prefers_residual():
        once = partial(residual_sweep, half=half)
    else:
        c, b = half.gram()
        once = partial(coordinate_sweep, c=c, b=b, free=half.free, smooth=half.smooth)
    return once if inner == 1 else lambda x: lax.fori_loop(0, inner, lambda _, x: once(x), x)


def anls_step(half: Half) -> Callable[[Array], Array]:
    """X -> the X that solves this half, nearly: alternating non-negative least squares. By HALS's sweeps."""
    if half.weights is not None:
        return hals_step(half, WEIGHTED_ANLS_SWEEPS)
    c, b = half.gram()
    gradient = gradient_of(half)

    def size(x: Array) -> Array:
        return jnp.linalg.norm(gradient(x))

    def solve(x: Array) -> Array:
        goal = ANLS_TOLERANCE * size(x)
        sweep = partial(coordinate_sweep, c=c, b=b, free=half.free, smooth=half.smooth)
        return descend(x, ANLS_SWEEPS, sweep, size, lambda _, left, x: ~(left > goal), every=1).state

    return solve


def block_sizes(k: int, block: int) -> tuple[int, int]:
    """Number and size of equal blocks of at most `block` rows that cover k rows with the least padding."""
    count = math.ceil(k / block)
    return count, math.ceil(k / count)


def solve_block(
    x: Array, residual: Array, b: Array, free: Array | None = None, smooth: Smoothness | None = None
) -> Array:
    """Change of the rows of one block by exact coordinate descent, row after row.

    x (s, m) the block's rows, residual (s, m) = C - B X on these rows before the change, b (s, s) the block of B on the
    diagonal -> change (s, m). A row whose diagonal entry is not positive stays as it is: its objective is linear or
    constant, and dividing would kill the row (Cichocki and Phan 2009 floor it; the floor depends on the data's unit).

    Entries that are not `free` (s, m) stay. With `smooth`, of strengths (s, 1), each row minimises a majoriser: the
    graph's own Hessian is replaced by a diagonal matrix that is never below it.
    """
    x, residual, b = jnp.asarray(x), jnp.asarray(residual), jnp.asarray(b)
    curvature = jnp.diagonal(b)
    if smooth is not None:
        # Rows are bound to one another by B alone: that of the graph is known before the first of them changes.
        residual, curvature = residual - smooth.slope(x), curvature[:, None] + smooth.curvature()
    usable = curvature > 0 if free is None else free & (curvature.reshape(len(x), -1) > 0)
    step = inverse(curvature)

    def row(change: Array, now: tuple[Array, ...]) -> tuple[Array, None]:
        j, old, rest, couplings, step, usable = now
        new = jnp.maximum(old + (rest - product(couplings, change)) * step, 0)
        return lax.dynamic_update_index_in_dim(change, jnp.where(usable, new - old, 0), j, axis=0), None

    # Numbers without a sign: for others XLA compiles what negative ones would mean, and runs it for every row.
    numbers = jnp.arange(len(x), dtype=np.uint32)
    return lax.scan(row, jnp.zeros_like(x), (numbers, x, residual, b, step, usable))[0]


def coordinate_sweep(
    x: Array,
    c: Array,
    b: Array,
    block: int = BLOCK,
    free: Array | None = None,
    smooth: Smoothness | None = None,
) -> Array:
    """One sweep over the rows of X (k, m) on C (k, m) and B (k, k); `free` and `smooth` as in `solve_block`.

    Blocks of rows share one matrix product; within a block the rows follow one another exactly, so that the iterates
    are those of the plain loop.
    """
    k = x.shape[0]
    count, size = block_sizes(k, block)
    if count == 1:
        return jnp.maximum(x + solve_block(x, c - product(b, x), b, free, smooth), 0)
    padding = ((0, count * size - k), (0, 0))
    x, c = (jnp.pad(array, padding) for array in (x, c))
    b = jnp.pad(b, (0, count * size - k))
    free = None if free is None else jnp.pad(free, padding)
    strengths = None if smooth is None else jnp.pad(smooth.strength, padding)

    def rows_of(whole: Array | None, start: Array) -> Array | None:
        return None if whole is None else lax.dynamic_slice_in_dim(whole, start, size)

    def update(i: Array, x: Array) -> Array:
        start = i * size
        rows = lax.dynamic_slice_in_dim(b, start, size)
        old = lax.dynamic_slice_in_dim(x, start, size)
        residual = lax.dynamic_slice_in_dim(c, start, size) - product(rows, x)
        part = None if smooth is None else Smoothness(smooth.graph, cast(Array, rows_of(strengths, start)))
        diagonal = lax.dynamic_slice_in_dim(rows, start, size, axis=1)
        new = old + solve_block(old, residual, diagonal, rows_of(free, start), part)
        return lax.dynamic_update_slice_in_dim(x, jnp.maximum(new, 0), start, axis=0)

    return lax.fori_loop(0, count, update, x)[:k]


def residual_sweep(x: Array, half: Half, block: int = BLOCK) -> Array:
    """`coordinate_sweep` on the Gram matrices of `half` (without weights), which are not formed.

    The iterates are the same; the cost is 6 k m q operations instead of 2 k m (k + q), the memory m q instead of
    k (k + m): for more atoms than features.
    """
    f, a, l1, l2 = half[:4]
    k = x.shape[0]
    count, size = block_sizes(k, block)
    padding = ((0, count * size - k), (0, 0))
    x, f = jnp.pad(x, padding), jnp.pad(f, padding)

    def update(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, rest = carry
        start = i * size
        atoms = lax.dynamic_slice_in_dim(f, start, size)
        old = lax.dynamic_slice_in_dim(x, start, size)
        b = product(atoms, atoms.T) + l2 * jnp.eye(size, dtype=f.dtype)
        change = solve_block(old, product(atoms, rest.T) - l1 - l2 * old, b)
        x = lax.dynamic_update_slice_in_dim(x, jnp.maximum(old + change, 0), start, axis=0)
        return x, rest - product(change.T, atoms)

    return lax.fori_loop(0, count, update, (x, cast(Array, a) - product(x.T, f)))[0][:k]


def weighted_sweep(x: Array, half: Half) -> Array:
    """One sweep over the rows of X on 0.5 sum Q (A - X^T F)^2 + l1 sum X + 0.5 l2 sum X^2, Q (m, q) the weights.

    A column of X all of whose weights are 0 has no data: it becomes 0, and so does every entry without curvature.
    """
    f, a, l1, l2, q = half[:5]
    x, f, q = jnp.asarray(x), jnp.asarray(f), cast(Array, q)
    l2 = jnp.broadcast_to(jnp.reshape(l2, (-1, 1)), (len(x), 1))
    smooth = half.smooth
    extra = l2 if smooth is None else l2 + smooth.curvature()

    def slope_of_penalties(x: Array, j: Array) -> Array:
        slope = l1 + l2[j] * x[j]
        if half.ortho is not None:
            slope = slope + half.ortho * (jnp.sum(x, axis=0) - x[j])
        if smooth is not None:
            own = Smoothness(smooth.graph, jnp.asarray(smooth.strength)[j])
            slope = slope + own.slope(x[j][None])[0]
        return slope

    def update(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, rest = carry
        curvature = product(q, f[j] ** 2) + extra[j]
        slope = product(q * rest, f[j]) - slope_of_penalties(x, j)
        usable = curvature > 0
        new = jnp.maximum(x[j] + slope / jnp.where(usable, curvature, 1), 0)
        # Zero atoms keep their codes, as in `solve_block`; samples without any weight lose them.
        new = jnp.where(usable, new, jnp.where(jnp.any(f[j] != 0), 0, x[j]))
        new = new if half.free is None else jnp.where(half.free[j], new, x[j])
        rest = rest - jnp.outer(new - x[j], f[j])
        return x.at[j].set(new), rest

    return lax.fori_loop(0, x.shape[0], update, (x, cast(Array, a) - product(x.T, f)))[0]
