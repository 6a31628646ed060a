"""Non-negative least squares on Gram matrices: minimise 0.5 <X, B X> - <C, X> over X >= 0, every column for itself.

Both halves of a factorization A ~ Z D with squared error have this form: X = Z^T with B = D D^T, C = D A^T, and X = D
with B = Z^T Z, C = Z^T A. An L2 penalty adds to the diagonal of B, an L1 penalty is taken from C. Shapes everywhere:
X, C (k, m), B (k, k) symmetric. Rows of X are contiguous, which is what the coordinate sweep wants.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.updates.projected_gradient import accelerate

# Rows solved one after the other inside one block; the rest of a sweep is matrix products. The iterates do not depend
# on it.
BLOCK = 32
POWER_ITERATIONS = 20


def product(a: Array | BCOO, b: Array | BCOO) -> Array:
    """a b in the full precision of their dtype, where an accelerator would round the operands; b may be sparse."""
    if isinstance(a, BCOO):
        return a @ jnp.asarray(b)
    if isinstance(b, BCOO):
        return jnp.asarray(a) @ b
    return jnp.matmul(a, b, precision="highest")


def inverse(x: Array) -> Array:
    """1 / x where x > 0, else 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def nonnegative(x: Array) -> Array:
    """Nearest non-negative point."""
    return jnp.maximum(x, 0)


def block_sizes(k: int, block: int) -> tuple[int, int]:
    """Number and size of equal blocks of at most `block` rows that cover k rows with the least padding."""
    count = math.ceil(k / block)
    return count, math.ceil(k / count)


def solve_block(x: Array, residual: Array, b: Array) -> Array:
    """Change of the rows of one block by exact coordinate descent, row after row.

    x (s, m) the block's rows, residual (s, m) = C - B X on these rows before the change, b (s, s) the block of B on the
    diagonal -> change (s, m). A row whose diagonal entry is not positive stays as it is: its objective is linear or
    constant, and dividing would kill the row (Cichocki and Phan 2009 floor it; the floor depends on the data's unit).
    """
    x, residual, b = jnp.asarray(x), jnp.asarray(residual), jnp.asarray(b)
    diagonal = jnp.diagonal(b)
    usable = diagonal > 0
    step = inverse(diagonal)

    def row(j: Array, change: Array) -> Array:
        gradient = residual[j] - product(b[j], change)
        new = jnp.maximum(x[j] + gradient * step[j], 0)
        return change.at[j].set(jnp.where(usable[j], new - x[j], 0))

    return lax.fori_loop(0, x.shape[0], row, jnp.zeros_like(x))


def coordinate_sweep(x: Array, c: Array, b: Array, block: int = BLOCK) -> Array:
    """One sweep of cyclic coordinate descent over the rows (HALS: Cichocki and Phan 2009, algorithm 2).

    Blocks of rows share one matrix product; within a block the rows follow one another exactly, so that the iterates
    are those of the plain loop.
    """
    k = x.shape[0]
    count, size = block_sizes(k, block)
    if count == 1:
        return jnp.maximum(x + solve_block(x, c - product(b, x), b), 0)
    padding = count * size - k
    x, c = (jnp.pad(array, ((0, padding), (0, 0))) for array in (x, c))
    b = jnp.pad(b, (0, padding))

    def update(i: Array, x: Array) -> Array:
        start = i * size
        rows = lax.dynamic_slice_in_dim(b, start, size)
        old = lax.dynamic_slice_in_dim(x, start, size)
        residual = lax.dynamic_slice_in_dim(c, start, size) - product(rows, x)
        new = old + solve_block(old, residual, lax.dynamic_slice_in_dim(rows, start, size, axis=1))
        return lax.dynamic_update_slice_in_dim(x, jnp.maximum(new, 0), start, axis=0)

    return lax.fori_loop(0, count, update, x)[:k]


def feasible_part(x: Array, gradient: Array) -> Array:
    """The gradient where x > 0, its negative part where x = 0: zero exactly at a minimum over x >= 0."""
    return jnp.where(x > 0, gradient, jnp.minimum(gradient, 0))


def projected_gradient(x: Array, c: Array, b: Array) -> Array:
    """`feasible_part` of the gradient B X - C. Shape of x."""
    return feasible_part(x, product(b, x) - c)


def quadratic_value(x: Array, c: Array, b: Array) -> Array:
    """0.5 <X, B X> - <C, X>, a scalar."""
    return jnp.sum(x * (0.5 * product(b, x) - c))


def largest_eigenvalue_bound(b: Array) -> Array:
    """Upper bound of the largest eigenvalue of B (k, k), close to it after power iterations on |B|.

    For a positive vector v, max_i (|B| v)_i / v_i bounds the spectral radius from above (Collatz and Wielandt), so that
    1 / bound is a safe step length; plain power iteration approaches the eigenvalue from below.
    """
    magnitude = jnp.abs(b)
    largest_row = jnp.max(jnp.sum(magnitude, axis=1))
    unit = jnp.where(largest_row > 0, largest_row, 1)
    magnitude = magnitude / unit

    def power(_: int, v: Array) -> Array:
        v = product(magnitude, v)
        return v / jnp.maximum(jnp.max(v), jnp.finfo(b.dtype).tiny)

    v = jnp.maximum(lax.fori_loop(0, POWER_ITERATIONS, power, jnp.ones(b.shape[0], b.dtype)), 1e-4)
    bound = jnp.minimum(jnp.max(product(magnitude, v) / v), jnp.max(jnp.sum(magnitude, axis=1)))
    return bound * unit * (1 + 16 * jnp.finfo(b.dtype).eps)


def accelerated_gradient(
    x: Array, c: Array, b: Array, steps: int, project: Callable[[Array], Array] = nonnegative
) -> Array:
    """Accelerated projected gradient with step 1 / L, `steps` times; the objective does not rise.

    `project` is the projection on the set that x is to stay in.
    """
    return accelerate(
        x,
        gradient=lambda y: product(b, y) - c,
        value=lambda y: quadratic_value(y, c, b),
        project=project,
        length=inverse(largest_eigenvalue_bound(b)),
        steps=steps,
    )


def multiplicative_step(x: Array, c: Array, b: Array, l1: Array, l2: Array) -> Array:
    """Lee and Seung's rule X <- X * C / (B X + l1 + l2 X) for non-negative C and B, penalties not yet in them.

    Where the denominator is 0 so is X or C, and X becomes 0.
    """
    below = product(b, x) + l1 + l2 * x
    return x * c / jnp.where(below > 0, below, 1)


def square_root_step(x: Array, above: Array, below: Array) -> Array:
    """X <- X sqrt(above / below), the rule of Ding, Li and Jordan (2010) for data of any sign; shapes of x.

    Entries whose denominator is 0 stay as they are; no constant is added, so the unit of the data does not matter.
    """
    return x * jnp.sqrt(jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 1))
