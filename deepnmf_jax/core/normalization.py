"""Rows that sum to 1: weights w from raw weights u (paper, eq. 20), inputs x from raw patches p.

The derivative is written out, dividing by the sum alone. Autodiff divides by its square, which underflows in float32,
so that one black patch or one zero row of u would give NaN.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from deepnmf_jax.core.dtypes import accumulated, floats

# The authors' constant, added to each sum. To smaller sums than SMALL it is not: the unit of p would matter.
SMALLEST_SUM = 1e-19
SMALL = 2.0**-44


def row_sums(a: Array) -> Array:
    """Sums along the last axis, kept as an axis, + 1e-19; 1 where they are 0, so that dividing by them is harmless."""
    return divisible(jnp.sum(a, axis=-1, keepdims=True))


def divisible(total: Array) -> Array:
    """Sums + 1e-19, those below 6e-14 as they are, and 1 where they are 0 (or so small that 1 / sum has no number)."""
    more = jnp.where(total > SMALL, SMALLEST_SUM, 0).astype(total.dtype)
    return jnp.where(_is_positive(total), total + more, 1)


def _is_positive(total: Array) -> Array:
    return total >= jnp.finfo(total.dtype).tiny


def sums_by_product(a: Array, factor: float = 1.0) -> Array:
    """Sums along the last axis, kept as an axis, of arrays of many rows, times `factor`. a (..., n) -> (..., 1)."""
    # As a product: XLA's CPU backend is slow at sums of many short rows. Profiles show the name.
    with jax.named_scope("row_sums"):
        return jnp.matmul(a, jnp.full((a.shape[-1], 1), factor, a.dtype), precision="highest")


def normalize_patches(p: ArrayLike) -> Array:
    """x = p / (sum p + 1e-19) along the last axis, in forward and reverse mode.

    Any unit will do: the constant is left out of sums below 6e-14, and rows whose sum is near the largest number or
    beyond it are divided by a power of two first. Entries below the smallest normal number (1.2e-38 in float32) count
    as 0, as in all programs that XLA compiles for a CPU.

    Args:
        p: (..., n), non-negative. Whole numbers and truth values are taken as float32.

    Returns:
        x (..., n), in the dtype of p; rows sum to 1, or are 0. A row of zeros passes no gradient.

    Raises:
        ValueError: complex numbers, or what is no number; a concrete array without an entry that is a normal number,
            unless all are 0.
    """
    return unit_rows(floats("p", p))


def normalize_weights(u: ArrayLike) -> Array:
    """w = |u| / (sum |u| + 1e-19) along the last axis (paper, eq. 20). u (k, n) of any sign -> w (k, n).

    Units, types and errors as in `normalize_patches`. A row of zeros stays zero and has gradient zero: a dead unit
    stays dead, as in the authors' code. The derivative of |u| at 0 is 0.
    """
    u = floats("u", u)
    # In place of jnp.abs, whose derivative at 0 is 1 in some versions of JAX.
    return unit_rows(jnp.sign(u) * u)


@jax.custom_jvp
def unit_rows(p: Array) -> Array:
    """`normalize_patches` of a floating-point array, without a look at its values."""
    return _divided(p)[0]


# Outside of other programs it is one, not one for each operation; inside of them it leaves no trace.
@partial(jax.jit, inline=True)
def _divided(p: Array) -> tuple[Array, Array]:
    """The rows over their sums, and 1 / sum, or 0 for a row of zeros (..., 1)."""
    wide = accumulated(p)
    sums = sums_by_product(wide)
    # A second product is cheaper than to look for the largest entries.
    most = int(jnp.finfo(wide.dtype).maxexp)
    small = 2.0 ** -(most // 2)
    # Not only where the sum is infinite: XLA multiplies with 1 / sum, which it takes for 0 below the smallest normal
    # number.
    overflows = sums > 2.0 ** (most - 4)
    unit = jnp.where(overflows, small, 1).astype(wide.dtype)
    sums = jnp.where(overflows, sums_by_product(wide, small), sums)
    total = divisible(sums)
    return (wide * unit / total).astype(p.dtype), jnp.where(_is_positive(sums), unit / total, 0)


@unit_rows.defjvp
def _unit_rows_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (p,), (dp,) = primals, tangents
    x, scale = _divided(p)
    d = accumulated(dp) * scale
    # In this form its transpose is (g - sum g x) * scale, with the sum as a product.
    change = d - accumulated(x) * _spread(jnp.sum(d, axis=-1, keepdims=True), p.shape[-1])
    return x, change.astype(p.dtype)


def _spread(column: Array, n: int) -> Array:
    """column (..., 1), n times beside itself: the transpose of `sums_by_product`."""
    with jax.named_scope("row_sums"):
        return jnp.matmul(column, jnp.ones((1, n), column.dtype), precision="highest")
