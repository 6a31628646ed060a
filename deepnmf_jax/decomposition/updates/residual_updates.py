"""Coordinate descent that keeps the residual instead of Gram matrices: for element weights, and for many atoms.

One half of A ~ X^T F, the other one fixed: X (k, m) is sought, F (k, q) given, A (m, q). For the codes of A ~ Z D that
is X = Z^T, F = D; for the dictionary X = D, F = Z^T and A transposed.
"""

import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.decomposition.updates.quadratic import BLOCK, block_sizes, feasible_part, product, solve_block


def residual_sweep(x: Array, f: Array, a: Array, l1: Array, l2: Array, block: int = BLOCK) -> Array:
    """One sweep of `quadratic.coordinate_sweep` on B = F F^T + l2, C = F A^T - l1, without forming B or C.

    The iterates are the same; the cost is 6 k m q operations instead of 2 k m (k + q), the memory m q instead of
    k (k + m): for more atoms than features.
    """
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

    return lax.fori_loop(0, count, update, (x, a - product(x.T, f)))[0][:k]


def weighted_sweep(x: Array, f: Array, a: Array, q: Array, l1: Array, l2: Array) -> Array:
    """One sweep over the rows of X on 0.5 sum Q (A - X^T F)^2 + l1 sum X + 0.5 l2 sum X^2.

    q (m, q) are the weights, non-negative; a column of X all of whose weights are 0 has no data: it becomes 0, and so
    does every entry without curvature.
    """

    x, f = jnp.asarray(x), jnp.asarray(f)

    def update(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, rest = carry
        curvature = product(q, f[j] ** 2) + l2
        slope = product(q * rest, f[j]) - l1 - l2 * x[j]
        usable = curvature > 0
        new = jnp.maximum(x[j] + slope / jnp.where(usable, curvature, 1), 0)
        # Zero atoms keep their codes, as in `quadratic.solve_block`; samples without any weight lose them.
        new = jnp.where(usable, new, jnp.where(jnp.any(f[j] != 0), 0, x[j]))
        rest = rest - jnp.outer(new - x[j], f[j])
        return x.at[j].set(new), rest

    return lax.fori_loop(0, x.shape[0], update, (x, a - product(x.T, f)))[0]


def weighted_projected_gradient(x: Array, f: Array, a: Array, q: Array, l1: Array, l2: Array) -> Array:
    """Projected gradient of the weighted half problem; the shapes are those of `weighted_sweep`."""
    gradient = product(f, (q * (product(x.T, f) - a)).T) + l1 + l2 * x
    return feasible_part(x, gradient)
