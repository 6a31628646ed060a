"""Products of dense and sparse matrices, and a safe length for steps along a gradient."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.io.host import namespace, product_of
from deepnmf_jax.decomposition.io.host_matrix import HostMatrix
from deepnmf_jax.decomposition.io.nonzeros import Matrix, Nonzeros

POWER_ITERATIONS = 20


def product(a: Matrix, b: Matrix) -> Array:
    """a b in the full precision of their dtype, where an accelerator would round the operands; one may be sparse."""
    if isinstance(a, HostMatrix):
        return a.times(np.asarray(b))  # type: ignore[return-value]
    if isinstance(b, HostMatrix):
        return b.T.times(np.asarray(a).T).T  # type: ignore[return-value]
    if isinstance(a, Nonzeros):
        return a.times(jnp.asarray(b))
    if isinstance(b, Nonzeros):
        return b.T.times(jnp.asarray(a).T).T
    if isinstance(a, BCOO):
        return a @ jnp.asarray(b)
    if isinstance(b, BCOO):
        return jnp.asarray(a) @ b
    if namespace(a, b) is np:
        return product_of(a, b)
    return jnp.matmul(a, b, precision="highest")


def column_sums(x: Array) -> Array:
    """Sums of the columns of X (k, m), (m,): a product with ones, several times as fast on a CPU as XLA's own sum."""
    # For a single row XLA writes a program, which takes it longer than to call that for two.
    return product(jnp.ones((2, len(x)), x.dtype), x)[0]


def inverse(x: Array) -> Array:
    """1 / x where x > 0, else 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


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
